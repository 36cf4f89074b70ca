package priority

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"

	"golang.org/x/sys/unix"
)

var garbage []byte

// collectChild says what is wrong with collections in real time.
func collectChild() string {
	if said, raised := Raise(RealTime); !raised {
		return said
	}
	percent := debug.SetGCPercent(-1)
	c := newCollector(percent)
	forced, own := cycles()
	for range 1024 { // 64 MB: by its own pace the runtime would collect each 4
		garbage = make([]byte, 64<<10)
		c.look()
	}
	if f, o := cycles(); f-forced < 8 || f-forced > 17 || o != own {
		return fmt.Sprintf("it collected %d times, the runtime %d times", f-forced, o-own)
	}
	said := ""
	Ordinary(func() {
		for _, level := range []class{realtime, niced} {
			evenly(level, func() { said += classes(level) })
			if c, err := of(0); err != nil || c != ordinary {
				said += fmt.Sprintf("it is at %v afterwards, %v; ", c, err)
			}
			out, err := exec.Command("/proc/self/exe").CombinedOutput()
			if got := string(out); err != nil || got != ordinary.String() {
				said += fmt.Sprintf("its child runs at %s afterwards, %v; ", got, err)
			}
		}
	})
	if said == "" {
		said = afterwards()
	}
	// The runtime's own thread makes some that are like it.
	if err := set(os.Getpid(), niced); err != nil {
		return err.Error()
	}
	evenly(realtime, func() {})
	if said == "fine" {
		said = afterwards()
	}
	return said
}

// classes says which thread is not at a level, and which program that is started.
func classes(level class) (said string) {
	tids, err := threads()
	if err != nil {
		return err.Error()
	}
	for _, tid := range tids {
		if c, err := of(tid); err == nil && c != level && tid != apart.watcher {
			said += fmt.Sprintf("a thread is at %v, not %v; ", c, level)
		}
	}
	out, err := exec.Command("/proc/self/exe").CombinedOutput()
	if got := string(out); err != nil || got != ordinary.String() {
		said += fmt.Sprintf("a program that it starts at %v runs at %s, %v; ", level, got, err)
	}
	return said
}

func afterwards() string {
	tids, err := threads()
	if err != nil {
		return err.Error()
	}
	for _, tid := range tids {
		want, is := apart.classes[tid]
		if !is {
			want = realtime
		}
		// The thread that has just ended is one of no class.
		if c, err := of(tid); err == nil && c != want && c != ordinary {
			return fmt.Sprintf("a thread is left at %v, not %v", c, want)
		}
	}
	return "fine"
}

func cycles() (forced, own uint64) {
	s := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}, {Name: "/gc/cycles/automatic:gc-cycles"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}

// watcherChild says what is wrong with the runtime's own thread: it is the one that no
// goroutine ever runs on.
func watcherChild() string {
	if said, raised := Raise(RealTime); !raised {
		return said
	}
	if len(apart.classes) != 1 {
		return fmt.Sprintf("%d threads are apart", len(apart.classes))
	}
	const many = 32 // more than there are threads by now
	ran, stop := make(chan int), make(chan struct{})
	defer close(stop)
	for range many {
		go func() {
			runtime.LockOSThread()
			ran <- unix.Gettid()
			<-stop
		}()
	}
	for range many {
		if tid := <-ran; apart.classes[tid] != (class{}) {
			return "a goroutine runs on it"
		}
	}
	for tid := range apart.classes {
		if c, err := of(tid); err != nil || c != niced {
			return fmt.Sprintf("it is at %v, %v", c, err)
		}
	}
	return "fine"
}

func TestCollectingInRealTime(t *testing.T) {
	needsRealTime(t)
	for _, what := range []string{"collect", "watcher"} {
		t.Run(what, func(t *testing.T) {
			if got := child(t, what, nil); got != "fine" {
				t.Error(got)
			}
		})
	}
}
