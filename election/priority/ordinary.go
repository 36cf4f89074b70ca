package priority

import (
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
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
		defer apart.enter(c)()
		do()
	}()
	<-done
}

// apart are the threads that are not of the class of all others.
var apart = exceptions{classes: map[int]class{}}

type exceptions struct {
	mu      sync.Mutex // held while threads are changed
	classes map[int]class
	watcher int // the runtime's own
}

// enter makes the calling thread one of them until leave is called.
//
// To be less urgent needs no capability. Where a filter of system calls forbids it all the
// same, the work is done as urgently as all else.
func (e *exceptions) enter(c class) (leave func()) {
	tid := unix.Gettid()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.classes[tid] = c
	_ = set(tid, c)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.classes, tid)
	}
}

// watch makes the runtime's own thread (runtime.sysmon) one of them, the first that a
// process makes. Busy, it wakes every 20 µs: in real time to the point, and whatever the
// kernel is just doing for packets makes way for it; otherwise it may come 50 µs later
// (prctl(2), PR_SET_TIMERSLACK). Nobody waits for it, by spinning or else.
func (e *exceptions) watch() {
	e.mu.Lock()
	defer e.mu.Unlock()
	tids, err := threads()
	if err != nil {
		return
	}
	first := 0
	for _, tid := range tids {
		if tid > os.Getpid() && (first == 0 || tid < first) {
			first = tid
		}
	}
	if first > 0 && set(first, niced) == nil {
		e.classes[first], e.watcher = niced, first
	}
}

// evenly does something while all threads of a process in real time are of one class, but
// for the runtime's own. What the kernel refuses stays as it is.
func evenly(level class, do func()) {
	apart.mu.Lock()
	defer apart.mu.Unlock()
	// Threads that the runtime's own has made since are as it is.
	defer func() { _ = setAll(realtime, apart.classes) }()
	_ = setAll(level, apart.classes)
	for tid, c := range apart.classes {
		if tid != apart.watcher {
			_ = setAlone(tid, level)
			defer func() { _ = set(tid, c) }()
		}
	}
	do()
}
