package audit

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Book follows connections from their beginning until the kernel forgets them, and makes
// a Record of each, once. It is for one goroutine.
type Book struct {
	// Gateway that keeps it.
	Gateway string
	// Starts asks for a Record at the beginning, too.
	Starts bool
	// Counting kernels know at a connection's very end how much it carried: then a Record
	// waits for that. Otherwise there is nothing to wait for when it has closed.
	Counting bool

	open  map[Key]entry
	vips  map[netip.Addr]part
	pods  map[[16]byte]*Pod // of the directory, as far as asked for
	of    *Directory
	found int64
}

// part that this gateway has in a VIP.
type part struct {
	held    bool
	settled bool // it follows the holder, and knows all connections there were
}

// entry is what is remembered of a connection.
type entry struct {
	pod     *Pod
	vip     netip.Addr
	began   int64 // Unix nanoseconds; 0: before this gateway knew
	closed  int64 // likewise; 0: it has not
	id      uint32
	route   uint16
	port    uint16
	reset   bool
	whole   bool // its packets passed here since it began, so counters have all of them
	written bool
}

// Missing is a connection that was not Present.
type Missing struct {
	key Key
	id  uint32
}

// Len is how many connections are followed.
func (b *Book) Len() int { return len(b.open) }

// Found is how many connections were found whose beginning nobody has told by now.
func (b *Book) Found() int64 { return b.found }

// Holder notes who holds the VIP, and appends that.
func (b *Book) Holder(out []Record, vip netip.Addr, holder string, at time.Time) []Record {
	held, before := holder == b.Gateway, b.vips[vip]
	if before.held && !held {
		for k, e := range b.open {
			if e.vip == vip && e.whole {
				e.whole = false
				b.open[k] = e
			}
		}
	}
	b.part(vip, part{held: held})
	return append(out, Record{Time: at, Event: HolderEvent, Gateway: b.Gateway, VIP: vip, Holder: holder})
}

// Settled notes whether all connections of the VIP are known that another holder has:
// then what turns up from here on begins now.
func (b *Book) Settled(vip netip.Addr, settled bool) {
	b.part(vip, part{held: b.vips[vip].held, settled: settled})
}

func (b *Book) part(vip netip.Addr, p part) {
	if b.vips == nil {
		b.vips = map[netip.Addr]part{}
	}
	b.vips[vip] = p
}

// See appends what a sighting is on record for.
func (b *Book) See(out []Record, s *Sighting, at time.Time, d *Directory) []Record {
	if !d.routes[s.Route].audit {
		delete(b.open, s.Key)
		return out
	}
	e, known := b.open[s.Key]
	same := known && e.id == s.ID
	switch s.Kind {
	case Began:
		if same { // a comparison has found it before its event was read
			b.found--
			if e.began == 0 {
				e.began = at.UnixNano()
				b.open[s.Key] = e
			}
			return out
		}
		out = b.unseen(out, s.Key, at, d)
		p := b.vips[s.VIP]
		e = b.enter(s, d)
		if e.whole = p.held; p.held || p.settled {
			e.began = at.UnixNano()
		}
		if b.Starts && p.held {
			r := b.record(s.Key, e, d)
			r.Event, r.Time, r.Reason = StartEvent, at, ""
			out = append(out, r)
		}
	case Closed:
		if !same {
			out, b.found = b.unseen(out, s.Key, at, d), b.found+1
			e = b.enter(s, d)
		}
		if e.closed == 0 {
			e.closed, e.reset = at.UnixNano(), s.Reset
		}
		if !b.Counting && !e.written {
			e.written = true
			out = append(out, b.ended(s, e, at, d, ""))
		}
	case Gone:
		return b.gone(out, s, same, at, d)
	default:
		return out
	}
	b.open[s.Key] = e
	return out
}

func (b *Book) gone(out []Record, s *Sighting, same bool, at time.Time, d *Directory) []Record {
	held := b.vips[s.VIP].held
	e := b.open[s.Key]
	if same {
		delete(b.open, s.Key)
	} else {
		if !held && !s.Expired {
			return out // a standby's copy
		}
		b.found++
		e = b.enter(s, d)
	}
	if s.Over && e.closed == 0 {
		e.closed, e.reset = at.UnixNano(), s.Reset
	}
	reason := Removed
	switch {
	case e.written:
		return out
	case e.closed != 0:
	case !held && (s.Expired || !s.Replied):
		// The holder knows nothing of what was not answered yet.
		reason = Moved
	case !held:
		return out // the holder has it on record, or will
	case e.pod.Name != "" && *b.whose(s.Key, d) != *e.pod:
		reason = PodGone
	case d.routes[e.route].gone:
		reason = RouteGone
	case s.Expired:
		reason = Timeout
	}
	return append(out, b.ended(s, e, at, d, reason))
}

// Compare takes what is there for what the book should have. What it lacks is entered:
// the first time, what has closed by then was an earlier run's to write. What it has too
// much is missing, unless it is told to be gone yet.
func (b *Book) Compare(out []Record, present []Sighting, first bool, at time.Time, d *Directory) ([]Record, []Missing) {
	there := make(map[Key]uint32, len(present))
	for i := range present {
		s := &present[i]
		if !d.routes[s.Route].audit {
			continue
		}
		there[s.Key] = s.ID
		if e, known := b.open[s.Key]; known && e.id == s.ID {
			continue
		}
		out = b.unseen(out, s.Key, at, d)
		e := b.enter(s, d)
		b.found++
		if s.Over {
			e.closed, e.reset, e.written = at.UnixNano(), s.Reset, first
			if !b.Counting && !e.written {
				e.written = true
				out = append(out, b.ended(s, e, at, d, ""))
			}
		}
		b.open[s.Key] = e
	}
	var missing []Missing
	for k, e := range b.open {
		if id, ok := there[k]; !ok || id != e.id {
			missing = append(missing, Missing{k, e.id})
		}
	}
	return out, missing
}

// Miss ends what is missing still, when all was read that was told before.
func (b *Book) Miss(out []Record, missing []Missing, at time.Time, d *Directory) []Record {
	for _, m := range missing {
		if e, known := b.open[m.key]; known && e.id == m.id {
			out = b.unseen(out, m.key, at, d)
		}
	}
	return out
}

// unseen ends a connection whose end nobody told.
func (b *Book) unseen(out []Record, k Key, at time.Time, d *Directory) []Record {
	e, known := b.open[k]
	if !known {
		return out
	}
	delete(b.open, k)
	if e.written || e.closed == 0 && !b.vips[e.vip].held {
		return out
	}
	return append(out, b.ended(&Sighting{Key: k}, e, at, d, Unobserved))
}

// Stop appends what would be lost with the book: what has closed, and what goes on
// without anybody who follows it.
func (b *Book) Stop(out []Record, at time.Time, d *Directory) []Record {
	first := len(out)
	for k, e := range b.open {
		if !e.written && (e.closed != 0 || b.vips[e.vip].held) {
			out = append(out, b.ended(&Sighting{Key: k}, e, at, d, Stopped))
		}
	}
	slices.SortFunc(out[first:], func(x, y Record) int {
		return cmp.Or(x.Start.Compare(y.Start), x.Source.Compare(y.Source), cmp.Compare(x.SourcePort, y.SourcePort),
			x.Destination.Compare(y.Destination), cmp.Compare(x.DestinationPort, y.DestinationPort), cmp.Compare(x.Protocol, y.Protocol))
	})
	b.open = nil
	return out
}

func (b *Book) enter(s *Sighting, d *Directory) entry {
	if b.open == nil {
		b.open = map[Key]entry{}
	}
	return entry{pod: b.whose(s.Key, d), vip: s.VIP, id: s.ID, route: s.Route, port: s.Port}
}

// whose a connection is by the directory. Connections of one pod share it.
func (b *Book) whose(k Key, d *Directory) *Pod {
	if b.of != d {
		b.of, b.pods = d, map[[16]byte]*Pod{}
	}
	p := b.pods[k.Src]
	if p == nil {
		found := d.pod(k.src())
		p = &found
		b.pods[k.Src] = p
	}
	return p
}

// ended is the record of an end. What has closed did so then, for that reason.
func (b *Book) ended(s *Sighting, e entry, at time.Time, d *Directory, reason Reason) Record {
	r := b.record(s.Key, e, d)
	r.Event, r.Time, r.Reason = EndEvent, at, reason
	if e.closed != 0 {
		r.Time, r.Reason = time.Unix(0, e.closed), Finished
		if e.reset {
			r.Reason = Reset
		}
	}
	r.Time = r.Time.UTC()
	r.Answered = s.Replied || e.closed != 0 && !e.reset
	r.Counted, r.Sent, r.Received = s.Counted, s.Sent, s.Received
	return r
}

func (b *Book) record(k Key, e entry, d *Directory) Record {
	r := Record{
		Gateway: b.Gateway, Route: d.routes[e.route].name, Pod: *e.pod,
		Source: k.src(), SourcePort: k.SrcPort, VIP: e.vip, Port: e.port, Destination: k.dst(), DestinationPort: k.DstPort,
		Protocol: ProtocolName(k.Protocol), TakenOver: !e.whole,
	}
	if k.Protocol == 1 || k.Protocol == 58 {
		r.DestinationPort = 0
	}
	if e.began != 0 {
		r.Start = time.Unix(0, e.began).UTC()
	}
	return r
}
