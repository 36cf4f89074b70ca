package priority

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// inForce is the nice value of the calling thread.
func inForce() (int, error) {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	return 20 - raw, err // see lowest
}

// ordinaryChild says what is wrong with what runs beside a raised process.
func ordinaryChild() string {
	before := runtime.GOMAXPROCS(0)
	if said, raised := Raise(); !raised {
		return said
	}
	if runtime.GOMAXPROCS(0) <= before {
		return "ordinary threads have no room beside"
	}
	var tid int
	said := ""
	Ordinary(func() {
		tid = unix.Gettid()
		if nice, err := inForce(); err != nil || nice != 0 {
			said = "Ordinary is not at nice 0"
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
			if raw, err := unix.Getpriority(unix.PRIO_PROCESS, other); other != tid && err == nil && raw != 40 {
				said = "another thread is not at nice -20"
			}
		}
	})
	if said != "" {
		return said
	}
	// Whatever runs next is urgent again, on as many threads as there may be.
	nices := make(chan int)
	for range 32 {
		go func() {
			runtime.LockOSThread()
			nice, err := inForce()
			if err != nil {
				nice = 20
			}
			nices <- nice
		}()
	}
	for range 32 {
		if <-nices != -20 {
			return "an ordinary thread outlived its work"
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
