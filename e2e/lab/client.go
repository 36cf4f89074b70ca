package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long a client that was stopped still listens for answers.
const grace = 250 * time.Millisecond

// client is what the kinds of clients have in common: a record that grows, and a
// loop in the pod's namespace that keeps an exact pace.
type client struct {
	mu       sync.Mutex
	timeline Timeline

	quit     chan struct{}
	loop     sync.WaitGroup // the sending loop
	rest     sync.WaitGroup // what listens for answers
	stopOnce sync.Once
	hangUp   func() // ends the listening
}

func newClient() *client { return &client{quit: make(chan struct{}), hangUp: func() {}} }

// run calls send in the pod's namespace, every so often by an absolute schedule:
// what comes late does not move what follows. Sockets that send opens are the pod's.
func (c *client) run(l *Lab, pod *Pod, every time.Duration, send func(n int)) error {
	ready := make(chan error, 1)
	c.loop.Go(func() {
		err := pod.ns.Do(func() error {
			ready <- nil
			return pace(every, c.quit, send)
		})
		if err != nil {
			select {
			case ready <- err:
			default:
			}
		}
	})
	if err := <-ready; err != nil {
		return err
	}
	l.onClose(func() error { c.stop(); return nil })
	return nil
}

// pace sleeps on the clock itself rather than on the runtime's timers, whose
// granularity is a millisecond, and does not spin.
func pace(every time.Duration, quit <-chan struct{}, send func(n int)) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	start := now.Nano()
	for n := 0; ; n++ {
		at := unix.NsecToTimespec(start + int64(n)*int64(every))
		for {
			err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &at, nil)
			if err == nil {
				break
			} else if err != unix.EINTR {
				return fmt.Errorf("sleep: %w", err)
			}
		}
		select {
		case <-quit:
			return nil
		default:
			send(n)
		}
	}
}

// stop ends the sending, waits for answers on their way, and ends the listening.
func (c *client) stop() {
	c.stopOnce.Do(func() {
		close(c.quit)
		c.loop.Wait()
		for until := time.Now().Add(grace); time.Now().Before(until) && c.report().Lost() > 0; {
			time.Sleep(time.Millisecond)
		}
		c.hangUp()
		c.rest.Wait()
		c.mu.Lock()
		c.timeline.End = time.Now()
		c.mu.Unlock()
	})
}

// Stop ends the client and gives all it saw.
func (c *client) Stop() Timeline {
	c.stop()
	return c.report()
}

// Report is what the client has seen so far.
func (c *client) Report() Timeline { return c.report() }

func (c *client) report() Timeline {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.timeline
	t.Exchanges = append([]Exchange(nil), t.Exchanges...)
	return t
}

// Since is the part of the report that was asked from a moment on, without a copy
// of what came before.
func (c *client) Since(from time.Time) Timeline {
	c.mu.Lock()
	defer c.mu.Unlock()
	first, _ := slices.BinarySearchFunc(c.timeline.Exchanges, from, func(e Exchange, at time.Time) int { return e.Sent.Compare(at) })
	return Timeline{Exchanges: slices.Clone(c.timeline.Exchanges[first:]), End: c.timeline.End}
}

// ask records a question and gives its number.
func (c *client) ask(e Exchange) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timeline.Exchanges = append(c.timeline.Exchanges, e)
	return len(c.timeline.Exchanges) - 1
}

// answer records what became of a question; only the first answer counts.
func (c *client) answer(n int, at time.Time, source netip.AddrPort, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < 0 || n >= len(c.timeline.Exchanges) {
		return
	}
	e := &c.timeline.Exchanges[n]
	if e.Answered.IsZero() {
		e.Answered, e.Source, e.Err = at, source, err
	}
}

// fail records that a question got no answer.
func (c *client) fail(n int, err error) { c.answer(n, time.Time{}, netip.AddrPort{}, err) }
