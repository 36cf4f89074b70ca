// Package priority puts the process before others on the CPU: an election misses
// its heartbeats first for want of a CPU, long before it does for a slow network.
package priority

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Way is how a process is put before others.
type Way string

// The ways. Nice counts where the kernel shares a CPU out fairly, in its own time:
// a heartbeat waits for the end of another's slice, some milliseconds. RealTime waits
// for nobody else's.
const (
	Nice     Way = "nice"
	RealTime Way = "realtime"
)

// class is what the kernel schedules a thread by (sched(7)).
type class struct {
	policy uint32
	rank   uint32 // of real time, 1 to 99
	nice   int32  // of all else
}

func (c class) String() string {
	switch {
	case c.policy == unix.SCHED_RR:
		return fmt.Sprintf("real time %d", c.rank)
	case c.nice == 0:
		return "normal"
	}
	return fmt.Sprintf("nice %d", c.nice)
}

var (
	// The lowest of real time: who asks for more is to have it.
	realtime = class{policy: unix.SCHED_RR, rank: 1}
	niced    = class{nice: -20}
	ordinary = class{}
)

// inRealTime is whether Raise had its way with RealTime.
var inRealTime atomic.Bool

// Raise puts every thread of the process before others and says what is in force
// afterwards, for the log and for status: "real time 1" or "nice -20", or what remained
// and why. Not raised is no failure: a replica at normal priority still serves. It is
// to be called once, before anything else of this package.
func Raise(w Way) (inForce string, raised bool) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + beside)
	if w != RealTime {
		return raise(niced)
	}
	err := setAll(realtime, nil)
	if worst, readErr := lowest(); err == nil && readErr == nil && worst == realtime {
		inRealTime.Store(true)
		apart.watch()
		return worst.String(), true
	}
	if errors.Is(err, unix.EPERM) {
		err = errors.New("its cgroup has no real time (cpu.rt_runtime_us), as in a pod where the kernel has RT_GROUP_SCHED")
	}
	inForce, raised = raise(niced)
	if raised { // and CAP_SYS_NICE is not what is missing
		inForce = fmt.Sprintf("%s, real time refused: %v", inForce, err)
	}
	return inForce, false
}

func raise(to class) (inForce string, raised bool) {
	err := setAll(to, nil)
	worst, readErr := lowest()
	switch {
	case readErr != nil:
		return fmt.Sprintf("unknown: %v", readErr), false
	case err == nil && worst == to:
		return to.String(), true
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return worst.String() + ": CAP_SYS_NICE missing", false
	case err != nil:
		return fmt.Sprintf("%v: %v", worst, err), false
	}
	return worst.String() + ": the kernel kept another than was set", false
}

// setAll changes every thread but some. sched_setattr(2) changes one thread only, and a thread
// inherits the class of the one that makes it: one that a thread not yet changed made
// meanwhile is found by looking again.
func setAll(to class, but map[int]class) error {
	done := map[int]bool{}
	for {
		tids, err := threads()
		if err != nil {
			return err
		}
		found := false
		for _, tid := range tids {
			if _, not := but[tid]; not || done[tid] {
				continue
			}
			found = true
			done[tid] = true
			if err := set(tid, to); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set %v on thread %d: %w", to, tid, err)
			}
		}
		if !found {
			return nil
		}
	}
}

// set changes one thread; 0 is the calling one. What it makes is like it.
func set(tid int, to class) error { return change(tid, to, 0) }

// setAlone changes one thread; what it makes, such as a program that it starts, is ordinary.
func setAlone(tid int, to class) error { return change(tid, to, unix.SCHED_FLAG_RESET_ON_FORK) }

func change(tid int, to class, flags uint64) error {
	return unix.SchedSetAttr(tid, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Flags: flags, Policy: to.policy, Priority: to.rank, Nice: to.nice,
	}, 0)
}

func of(tid int) (class, error) {
	attr, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return class{}, err
	}
	if attr.Policy == unix.SCHED_RR {
		return class{policy: attr.Policy, rank: attr.Priority}, nil
	}
	return class{policy: attr.Policy, nice: attr.Nice}, nil
}

// before tells whether a thread of class c goes before one of class d.
func (c class) before(d class) bool {
	if c.rank != d.rank {
		return c.rank > d.rank
	}
	return c.nice < d.nice
}

// lowest is the least urgent class of any thread.
func lowest() (class, error) {
	tids, err := threads()
	if err != nil {
		return class{}, err
	}
	var worst *class
	for _, tid := range tids {
		c, err := of(tid)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return class{}, fmt.Errorf("read the scheduling of thread %d: %w", tid, err)
		}
		if worst == nil || worst.before(c) {
			worst = &c
		}
	}
	if worst == nil {
		return class{}, errors.New("no thread could be read")
	}
	return *worst, nil
}

func threads() ([]int, error) {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, fmt.Errorf("list the threads of this process: %w", err)
	}
	tids := make([]int, 0, len(entries))
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, nil
}
