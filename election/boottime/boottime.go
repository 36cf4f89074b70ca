// Package boottime tells the time that leases are measured in.
package boottime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since boot, suspended time included. Go's own monotonic clock
// stands still while a host is suspended (CLOCK_MONOTONIC), and a holder that wakes
// up would believe in a lease that has long ended.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Only an invalid clock or address can fail, and CLOCK_BOOTTIME is in every
		// kernel since 2.6.39; going on without a clock would risk two holders.
		panic("read CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
