package reconcile

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// start runs a loop in the bubble and returns the times of its runs since the start.
func start(t *testing.T, do func(run int) error) (*Loop, *[]time.Duration) {
	var runs []time.Duration
	begin := time.Now()
	l := New("test", quiet(), nil)
	l.Do = func(context.Context) error {
		runs = append(runs, time.Since(begin))
		return do(len(runs))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v at the end of its context", err)
		}
	})
	return l, &runs
}

func TestManyKicksAreOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, runs := start(t, func(int) error { return nil })
		for range 100 {
			l.Kick()
			time.Sleep(10 * time.Microsecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(*runs) != 1 {
			t.Fatalf("100 kicks within the settling time made %d runs, want 1", len(*runs))
		}
	})
}

func TestNothingRunsUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, runs := start(t, func(int) error { return nil })
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(*runs) != 0 {
			t.Fatalf("%d runs before the first kick: there was no view to apply yet", len(*runs))
		}
	})
}

func TestResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, runs := start(t, func(int) error { return nil })
		l.Kick()
		time.Sleep(95 * time.Second)
		synctest.Wait()
		if len(*runs) != 4 {
			t.Fatalf("%d runs in 95 s, want the first and 3 resyncs", len(*runs))
		}
	})
}

func TestFailureIsRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, runs := start(t, func(run int) error {
			if run < 4 {
				return errors.New("no")
			}
			return nil
		})
		l.Kick()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		want := []time.Duration{2, 202, 602, 1402}
		if len(*runs) != len(want) {
			t.Fatalf("runs at %v, want 4", *runs)
		}
		for i, w := range want {
			if (*runs)[i] != w*time.Millisecond {
				t.Fatalf("runs at %v, want %v ms", *runs, want)
			}
		}
	})
}
