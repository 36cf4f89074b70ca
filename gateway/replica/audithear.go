package replica

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/audit"
	"github.com/sallyport/sallyport/flows/conntrack"
)

// hear takes the events of audited routes.
func (a *auditor) hear(batch []conntrack.Event) {
	if a == nil {
		return
	}
	d, t, some := a.directory.Load(), told{at: time.Now()}, false
	a.queue.mu.Lock()
	for i := range batch {
		ev := &batch[i]
		if ev.Kind == conntrack.Lost {
			a.queue.gaps.left, a.queue.gaps.overrun, some = true, true, true
			continue
		}
		if !d.Concerns(routeOf(ev.Entry.Mark)) {
			continue
		}
		var ok bool
		if t.seen, ok = sighting(ev); ok {
			a.queue.put(&t)
			some = true
		}
	}
	a.queue.mu.Unlock()
	if some {
		a.rouse()
	}
}

// sighting of an event; false for one that says nothing new.
func sighting(ev *conntrack.Event) (audit.Sighting, bool) {
	e := &ev.Entry
	t := &e.Original
	s := audit.Sighting{
		ID: e.ID(), VIP: e.Reply.Dst, Port: e.Reply.DstPort, Route: routeOf(e.Mark), Replied: e.Status&conntrack.SeenReply != 0,
		Over: e.Over(), Reset: e.Broken(),
	}
	switch t.Protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		s.Key, s.Port = audit.KeyOf(t.Src, t.Dst, t.ICMPID, uint16(t.ICMPType)<<8|uint16(t.ICMPCode), t.Protocol), e.Reply.ICMPID
	default:
		s.Key = audit.KeyOf(t.Src, t.Dst, t.SrcPort, t.DstPort, t.Protocol)
	}
	switch {
	case ev.Kind == conntrack.New:
		s.Kind = audit.Began
	case ev.Kind == conntrack.Destroyed:
		s.Kind, s.Expired, s.Counted = audit.Gone, e.Timeout == 0, e.Counted
		s.Sent, s.Received = audit.Traffic(e.Sent), audit.Traffic(e.Received)
	case s.Over:
		s.Kind = audit.Closed
	default:
		return s, false
	}
	return s, true
}

// holds notes who holds a VIP.
func (a *auditor) holds(vip netip.Addr, holder string) {
	if a != nil {
		a.queue.note(told{at: time.Now(), what: holding, vip: vip, holder: holder})
		a.rouse()
	}
}

// adrift notes that it is nobody's, as far as is known, and was this gateway's.
func (a *auditor) adrift(vip netip.Addr) {
	if a != nil {
		a.queue.note(told{at: time.Now(), what: drifting, vip: vip})
	}
}

// settled notes that this kernel has all connections that the holder has: not before their
// events are heard. It waits for nobody.
func (a *auditor) settled(ctx context.Context, vip netip.Addr) {
	if a == nil {
		return
	}
	go func() {
		if a.listener().Flush(ctx) == nil {
			a.queue.note(told{at: time.Now(), what: inStep, vip: vip})
		}
	}()
}

func (a *auditor) unsettled(vip netip.Addr) {
	if a != nil {
		a.queue.note(told{at: time.Now(), what: outOfStep, vip: vip})
	}
}
