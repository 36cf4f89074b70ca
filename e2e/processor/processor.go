// Package processor tells benchmarks what processor time they take: on a busy machine it
// says more than the clock.
package processor

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Used is the time that this process has had so far, with the programs that it ran to
// their end, and the kernel's part of both.
func Used(tb testing.TB) (sum time.Duration) {
	tb.Helper()
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			tb.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}
