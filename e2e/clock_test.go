package e2e

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

// stepClockEnv makes the test program step the host's clock instead of testing.
const stepClockEnv = "SALLYPORT_E2E_STEP_CLOCK"

const clockStep = time.Hour

// stepClock moves CLOCK_REALTIME forward, and back a second later. The kernel adds
// each offset itself (ADJ_SETOFFSET, adjtimex(2)): no time is lost between reading
// and writing. It runs as a process of its own, in its own session and deaf to the
// usual signals, so that the clock is put back whatever becomes of the test.
func stepClock() error {
	if err := shiftClock(clockStep); err != nil {
		return err
	}
	second := unix.NsecToTimespec(int64(time.Second))
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &second, &second) == unix.EINTR {
	}
	return shiftClock(-clockStep)
}

func shiftClock(by time.Duration) error {
	_, err := unix.Adjtimex(&unix.Timex{
		Modes: unix.ADJ_SETOFFSET, Time: unix.NsecToTimeval(int64(by)),
	})
	return err
}

// wallOffset is how far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC.
func wallOffset(t *testing.T) time.Duration {
	t.Helper()
	var wall, monotonic unix.Timespec
	if err := errors.Join(unix.ClockGettime(unix.CLOCK_REALTIME, &wall), unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic)); err != nil {
		t.Fatal(err)
	}
	return time.Duration(wall.Nano() - monotonic.Nano())
}

// jump steps the clock there and back while traffic flows.
func (w *world) jump(tr *traffic) {
	w.t.Helper()
	before := wallOffset(w.t)
	step := exec.Command(os.Args[0])
	step.Env = append(os.Environ(), stepClockEnv+"=1")
	step.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	w.must(step.Start())
	done := make(chan error, 1)
	go func() { done <- step.Wait() }()
	w.await(func() error {
		if wallOffset(w.t)-before < clockStep/2 {
			return errors.New("the clock has not jumped")
		}
		return nil
	})
	w.flowsAgain(tr, time.Now())
	w.must(<-done)
	w.flowsAgain(tr, time.Now())
	if off := (wallOffset(w.t) - before).Abs(); off > time.Second {
		w.t.Errorf("the clock is %v off afterwards", off)
	}
}

// TestAClockJumpChangesNothing: leases run on CLOCK_BOOTTIME, so that the hour
// is nothing to them.
func TestAClockJumpChangesNothing(t *testing.T) {
	w := start(t, lab.Options{GatewayArgs: unhurried}) // or a busy machine may take a lease by itself
	if err := shiftClock(0); err != nil {
		t.Skipf("the clock cannot be set here: %v", err)
	}
	for j := 1; j <= w.Options.Nodes; j++ {
		w.seenEventually(selected(j), partner, theVIP)
	}
	tr := w.startTraffic(1, 2, 3)
	holder := w.holder()
	before := w.status(lab.Gateway, holder).VIPs[0]
	w.jump(tr)
	if now := w.status(lab.Gateway, holder).VIPs[0]; !now.Held || now.Term != before.Term {
		t.Errorf("%+v became %+v", before, now)
	}
	w.stop(tr)
	w.noLeak()
	w.oneHolder()
}
