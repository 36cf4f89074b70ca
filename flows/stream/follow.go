package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/flows"
)

// Table is where a standby keeps the flows of a VIP.
type Table interface {
	// Flows are all that could be replicated, Live those that are.
	Flows() ([]flows.Flow, error)
	Live() ([]flows.Flow, error)
	Apply(changes []flows.Change) error
}

// Following is a standby's part in one VIP.
type Following struct {
	Ring  *Ring
	Name  string // of this member
	VIP   string
	Term  uint64         // the holder's; an earlier one is refused
	At    netip.AddrPort // where the holder listens
	Table Table
	// Have is what the table has by now; Whole that it lacks nothing up to there.
	Have  flows.Position
	Whole bool
	// InStep is called when the first snapshot is in; nil for nobody.
	InStep func()

	bytes  atomic.Uint64
	synced atomic.Bool
	now    atomic.Pointer[flows.Position] // what the table has since the stream began
}

// renew is how long a stream lasts at most: the snapshot of the next one sets right
// whatever may have gone astray, and renews the timeouts of what had no news for so
// long. It is to be less than an entry lasts on a standby.
const renew = 6 * time.Hour

// ErrRenew ends a stream that has lasted long enough.
var ErrRenew = errors.New("the stream is begun anew")

// Bytes of both directions so far.
func (w *Following) Bytes() uint64 { return w.bytes.Load() }

// Synced tells that the table has everything that the holder sent.
func (w *Following) Synced() bool { return w.synced.Load() }

// Position is what the table has by now, should another stream begin.
func (w *Following) Position() flows.Position {
	if now := w.now.Load(); now != nil {
		return *now
	}
	return w.Have
}

// Run follows one stream until it or the context ends.
func (w *Following) Run(ctx context.Context) error {
	defer w.synced.Store(false)
	raw, err := (&net.Dialer{Timeout: handshake}).DialContext(ctx, "tcp", w.At.String())
	if err != nil {
		return fmt.Errorf("follow VIP %s: %w", w.VIP, err)
	}
	defer raw.Close()
	quiet := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer quiet()
	config, changed := w.Ring.current()
	c := &conn{Conn: tls.Client(raw, config), bytes: &w.bytes}
	greeting, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	if err := c.HandshakeContext(greeting); err != nil {
		return fmt.Errorf("follow VIP %s at %s: %w", w.VIP, w.At, err)
	}
	if err := c.send(flows.Message{Kind: flows.Hello, Term: w.Term, Name: w.Name, VIP: w.VIP, Have: w.Have}); err != nil {
		return fmt.Errorf("follow VIP %s at %s: %w", w.VIP, w.At, err)
	}
	standby, began := flows.NewStandby(w.Term), time.Now()
	for ctx.Err() == nil {
		m, err := c.receive(silence)
		switch {
		case err != nil:
		case m.Kind == flows.Ask:
			err = w.upload(c, m.Term)
		default:
			if err = w.step(ctx, standby, m); err == nil {
				err = c.send(standby.Answer(m))
			}
		}
		select {
		case <-changed:
			err = errors.Join(err, errors.New("the gossip keys have changed"))
		default:
		}
		if err != nil {
			return fmt.Errorf("follow VIP %s at %s: %w", w.VIP, w.At, err)
		}
		if standby.Synced() {
			now := standby.Position()
			w.now.Store(&now)
		}
		if synced := standby.Synced(); synced != w.synced.Swap(synced) && synced && w.InStep != nil {
			w.InStep()
		}
		if standby.Synced() && time.Since(began) > renew {
			return ErrRenew
		}
	}
	return nil
}

func (w *Following) step(ctx context.Context, standby *flows.Standby, m flows.Message) error {
	changes, err := standby.Step(m, w.Table.Flows)
	if err != nil {
		return err
	}
	// What is not wanted any more must not be done half: a sweep can be long.
	for len(changes) > 0 && ctx.Err() == nil {
		n := min(len(changes), flows.MaxChanges)
		if err := w.Table.Apply(changes[:n]); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return ctx.Err()
}
