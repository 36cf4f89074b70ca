package priority

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// besideChild says what is wrong with what runs beside a raised process.
func besideChild(w Way, run func(func()), raisedTo, want class) string {
	before := runtime.GOMAXPROCS(0)
	if said, raised := Raise(w); !raised {
		return said
	}
	if runtime.GOMAXPROCS(0) <= before {
		return "ordinary threads have no room beside"
	}
	said := ""
	run(func() {
		if c, err := of(0); err != nil || c != want {
			said = fmt.Sprintf("it runs at %v, %v", c, err)
			return
		}
		// Threads that are made meanwhile are the process's, not this one's.
		release := onThreads(16)
		defer release()
		tids, err := threads()
		if err != nil {
			said = err.Error()
		}
		for _, other := range tids {
			if _, is := apart.classes[other]; is {
				continue
			}
			if c, err := of(other); err == nil && c != raisedTo {
				said = fmt.Sprintf("another thread is at %v", c)
			}
		}
		// What it runs is no more urgent than it.
		out, err := exec.Command("/proc/self/exe").CombinedOutput()
		if got := string(out); err != nil || got != want.String() {
			said = fmt.Sprintf("its child runs at %s, %v", got, err)
		}
	})
	if said != "" {
		return said
	}
	// Whatever runs next is urgent again, on as many threads as there may be.
	classes := make(chan class)
	for range 32 {
		go func() {
			runtime.LockOSThread()
			c, _ := of(0)
			classes <- c
		}()
	}
	for range 32 {
		if c := <-classes; c != raisedTo {
			return fmt.Sprintf("a thread that outlived its work is at %v", c)
		}
	}
	return "fine"
}

func TestOrdinaryIsOneThreadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for CAP_SYS_NICE")
	}
	if got := child(t, "ordinary", nil); got != "fine" {
		t.Error(got)
	}
}

func TestBesideRealTime(t *testing.T) {
	needsRealTime(t)
	for _, what := range []string{"ordinary-realtime", "not-realtime"} {
		t.Run(what, func(t *testing.T) {
			if got := child(t, what, nil); got != "fine" {
				t.Error(got)
			}
		})
	}
}
