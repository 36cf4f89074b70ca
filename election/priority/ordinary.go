package priority

import (
	"runtime"
)

// beside is how many of Go's processors there are besides those that a program has
// anyway: one that an ordinary thread holds while it waits for a CPU is of no use to a
// heartbeat, and a heartbeat must not wait for it.
const beside = 4

// Ordinary does something long on a thread of its own that is not put before others:
// what would otherwise take the CPU from the election, and from the packets. It
// returns when that is done.
func Ordinary(do func()) { as(ordinary, do) }

// NotRealTime does what is urgent, but takes a while, and may run other programs: a
// thread of real time would keep the election's from the CPU for as long. Where real
// time is not in force it does it as it is.
func NotRealTime(do func()) {
	if !inRealTime.Load() {
		do()
		return
	}
	as(niced, do)
}

func as(c class, do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and no other is made from it
		// To be less urgent needs no capability. Where a filter of system calls forbids it
		// all the same, the work is done as urgently as all else.
		_ = set(0, c)
		do()
	}()
	<-done
}
