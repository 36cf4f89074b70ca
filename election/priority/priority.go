// Package priority puts the process before others on the CPU: an election misses
// its heartbeats first for want of a CPU, long before it does for a slow network.
package priority

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// The most urgent nice value (sched(7)), and everybody's.
const (
	highest  = -20
	ordinary = 0
)

// Raise sets every thread of the process to nice -20 and says what is in force
// afterwards, for the log and for status: "nice -20", or the nice value that
// remained and why. Not raised is no failure: a replica at normal priority still
// serves. It is to be called once, before any Ordinary.
func Raise() (inForce string, raised bool) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + beside)
	return raise(highest)
}

func raise(nice int) (inForce string, raised bool) {
	err := setAll(nice)
	worst, readErr := lowest()
	if readErr != nil {
		return fmt.Sprintf("unknown: %v", readErr), false
	}
	if err == nil && worst == nice {
		return fmt.Sprintf("nice %d", nice), true
	}
	state := "normal"
	if worst != 0 {
		state = fmt.Sprintf("nice %d", worst)
	}
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return state + ": CAP_SYS_NICE missing", false
	case err != nil:
		return fmt.Sprintf("%s: %v", state, err), false
	default:
		return state + ": the kernel kept another nice value than was set", false
	}
}

// setAll changes every thread. setpriority(2) with PRIO_PROCESS changes one thread
// only on Linux, and a thread inherits the value of the one that makes it: one that
// a thread not yet changed made meanwhile is found by looking again.
func setAll(nice int) error {
	done := map[int]bool{}
	for {
		tids, err := threads()
		if err != nil {
			return err
		}
		found := false
		for _, tid := range tids {
			if done[tid] {
				continue
			}
			found = true
			done[tid] = true
			err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set nice %d on thread %d: %w", nice, tid, err)
			}
		}
		if !found {
			return nil
		}
	}
}

// lowest is the least urgent nice value of any thread.
func lowest() (int, error) {
	tids, err := threads()
	if err != nil {
		return 0, err
	}
	worst := highest
	for _, tid := range tids {
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read nice of thread %d: %w", tid, err)
		}
		// The system call answers 20 - nice, so that no answer is negative (getpriority(2)).
		worst = max(worst, 20-raw)
	}
	return worst, nil
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
