package boottime_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/election/boottime"
)

func TestNowIsTheKernelsUptime(t *testing.T) {
	before := uptime(t)
	now := boottime.Now()
	after := uptime(t)
	// /proc/uptime is cut to hundredths of a second.
	if now < before || now > after+10*time.Millisecond {
		t.Errorf("Now() = %v, outside of /proc/uptime before and after: %v to %v", now, before, after)
	}
}

func TestNowNeverGoesBack(t *testing.T) {
	last := boottime.Now()
	for range 1000 {
		now := boottime.Now()
		if now < last {
			t.Fatalf("%v after %v", now, last)
		}
		last = now
	}
}

// uptime reads /proc/uptime, which fs/proc/uptime.c takes from CLOCK_BOOTTIME.
func uptime(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	up, err := time.ParseDuration(strings.Fields(string(text))[0] + "s") // exact, as a float times 100 is not
	if err != nil {
		t.Fatal(err)
	}
	return up
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		boottime.Now()
	}
}
