package host

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/lastview"
)

// feed is a source that gives what the test sends.
type feed chan gateway.Snapshot

func (f feed) Run(ctx context.Context, deliver func(gateway.Snapshot)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-f:
			deliver(s)
		}
	}
}

var (
	saved  = gateway.Snapshot{Routes: []gateway.Route{{Name: "payments"}}, Nodes: []gateway.Node{{Name: "n1"}}}
	broken = gateway.Snapshot{
		Nodes:    []gateway.Node{{Name: "n1"}},
		Problems: []gateway.Problem{{File: "payments.yaml", Reason: gateway.Unreadable}},
	}
	sound = gateway.Snapshot{Nodes: []gateway.Node{{Name: "n1"}}}
)

// run gives a view with a saved one on disk, if any, and what to feed it.
func run(t *testing.T, older *gateway.Snapshot) (*View, feed, string) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent-view.json")
	if older != nil {
		if err := lastview.Save(file, *older); err != nil {
			t.Fatal(err)
		}
	}
	f := make(feed)
	v := NewView(f, dir, "agent", func() {}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return v, f, file
}

func (v *View) routes(t *testing.T) int {
	t.Helper()
	synctest.Wait()
	s, have := v.Snapshot()
	if !have {
		return -1
	}
	return len(s.Routes)
}

func TestTheSavedViewStandsInForASilentSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, f, _ := run(t, &saved)
		if n := v.routes(t); n != -1 {
			t.Fatalf("%d routes before the source had time to answer", n)
		}
		time.Sleep(2 * patience)
		if n := v.routes(t); n != 1 || v.Live() {
			t.Fatalf("%d routes, live %v", n, v.Live())
		}
		f <- sound
		if n := v.routes(t); n != 0 || !v.Live() {
			t.Errorf("%d routes, live %v once the source answers", n, v.Live())
		}
	})
}

func TestTheAgeIsThatOfTheLastWholeView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, f, _ := run(t, nil)
		if age, ok := v.Age(); ok {
			t.Errorf("%v before there was a view", age)
		}
		for _, step := range []struct {
			given       gateway.Snapshot
			least, most time.Duration
		}{{sound, 0, 2 * time.Second}, {broken, time.Minute, time.Minute + 2*time.Second}, {sound, 0, 2 * time.Second}} {
			f <- step.given
			time.Sleep(time.Minute)
			if age, ok := v.Age(); !ok || age < step.least || age > step.most {
				t.Errorf("%v a minute after %+v, want %v to %v", age, step.given, step.least, step.most)
			}
		}
	})
}

func TestWhatCannotBeReadTakesNothingAwayAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, f, file := run(t, &saved)
		for _, s := range []gateway.Snapshot{broken, {}} {
			f <- s
			if n := v.routes(t); n != 1 {
				t.Fatalf("%d routes with %+v, want the saved one", n, s)
			}
		}
		time.Sleep(2 * saveAfter)
		if s, err := lastview.Restore(file); err != nil || len(s.Routes) != 1 {
			t.Errorf("saved meanwhile: %+v, %v", s, err)
		}
		f <- sound
		if n := v.routes(t); n != 0 {
			t.Errorf("%d routes after a sound view without any", n)
		}
		f <- broken // from here on the source itself remembers
		if n := v.routes(t); n != 0 {
			t.Errorf("%d routes: an old view came back", n)
		}
	})
}

// An API server refuses objects one by one, by name.
func TestWhatIsRefusedStaysWhatItWasBeforeARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := gateway.Snapshot{
			Routes: []gateway.Route{{Name: "payments"}, {Name: "deleted"}},
			Pods:   []gateway.Pod{{Namespace: "x", Name: "refused"}, {Namespace: "x", Name: "deleted"}},
			Nodes:  []gateway.Node{{Name: "n1"}, {Name: "n2"}, {Name: "deleted"}},
		}
		refusing := func(objects ...string) gateway.Snapshot {
			s := sound
			for _, o := range objects {
				s.Problems = append(s.Problems, gateway.Problem{Object: o, Reason: gateway.Invalid})
			}
			return s
		}
		v, f, _ := run(t, &before)
		f <- refusing("EgressRoute payments", "Pod x/refused", "Node n2")
		if n := v.routes(t); n != 1 {
			t.Errorf("%d routes, want the one that is refused", n)
		}
		s, _ := v.Snapshot()
		if len(s.Pods) != 1 || len(s.Nodes) != 2 {
			t.Errorf("pods %v, nodes %v: want those that are or are refused", s.Pods, s.Nodes)
		}
		f <- refusing("EgressRoute payments", "EgressRoute deleted")
		if n := v.routes(t); n != 1 {
			t.Errorf("%d routes: one that was gone came back", n)
		}
		f <- sound
		if n := v.routes(t); n != 0 {
			t.Errorf("%d routes once nothing is refused", n)
		}
		f <- refusing("EgressRoute payments")
		if n := v.routes(t); n != 0 {
			t.Errorf("%d routes: an old view came back", n)
		}
	})
}

func TestASoundViewIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, f, file := run(t, nil)
		f <- saved
		if n := v.routes(t); n != 1 {
			t.Fatal(n)
		}
		time.Sleep(2 * saveAfter)
		if s, err := lastview.Restore(file); err != nil || len(s.Routes) != 1 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestAViewNotYetSavedIsSavedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		f := make(feed)
		v := NewView(f, dir, "agent", func() {}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- v.Run(ctx) }()
		f <- saved
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if s, err := lastview.Restore(filepath.Join(dir, "agent-view.json")); err != nil || len(s.Routes) != 1 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestLargeViewsAreSavedLessOften(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		0: saveAfter, 20 * time.Millisecond: saveAfter, 100 * time.Millisecond: 10 * time.Second, time.Minute: saveMost,
	} {
		if in := saveIn(took); in != want {
			t.Errorf("a view that takes %v is saved after %v, want %v", took, in, want)
		}
	}
}
