package audit

import (
	"net/netip"
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
	vips  map[netip.Addr]*part
	pods  map[[16]byte]*owner // by address in the directory, as far as asked for
	of    *Directory
	view  int // its number
	found int64
}

// part that this gateway has in a VIP.
type part struct {
	vip  netip.Addr
	held bool
	// adrift: it was held, and who has it now is not known. What ends meanwhile is this
	// gateway's to write only if nobody else had the VIP.
	adrift  bool
	ends    []end
	settled bool // it follows the holder, and knows all connections there were
}

// end that was told while the VIP was adrift.
type end struct {
	seen Sighting
	at   time.Time
}

// entry is what is remembered of a connection.
type entry struct {
	pod     *owner
	part    *part
	began   int64 // Unix nanoseconds; 0: before this gateway knew
	closed  int64 // likewise; 0: it has not
	id      uint32
	route   uint16
	port    uint16
	reset   bool
	whole   bool // its packets passed here since it began, so counters have all of them
	written bool
}

// Len is how many connections are followed.
func (b *Book) Len() int { return len(b.open) }

// Found is how many connections were found whose beginning nobody has told by now.
func (b *Book) Found() int64 { return b.found }

// Holder notes who holds the VIP, and appends that, and what ended while nobody knew.
func (b *Book) Holder(out []Record, vip netip.Addr, holder string, at time.Time, d *Directory) []Record {
	p := b.part(vip)
	held, again := holder == b.Gateway, p.adrift && holder == b.Gateway
	if (p.held || p.adrift) && !held {
		for k, e := range b.open {
			if e.part == p && e.whole {
				e.whole = false
				b.open[k] = e
			}
		}
	}
	*p = part{vip: vip, held: held, ends: p.ends}
	out = b.late(out, p, d)
	if again { // nobody had it meanwhile
		return out
	}
	return append(out, Record{Time: at, Event: HolderEvent, Gateway: b.Gateway, VIP: vip, Holder: holder})
}

// late sees what ended while the VIP was adrift.
func (b *Book) late(out []Record, p *part, d *Directory) []Record {
	ends := p.ends
	p.ends = nil
	for i := range ends {
		if s := &ends[i].seen; b.open[s.Key].id == s.ID {
			out = b.See(out, s, ends[i].at, d)
		}
	}
	return out
}

// Adrift notes that this gateway no longer holds the VIP, and knows nobody who does.
func (b *Book) Adrift(vip netip.Addr) {
	p := b.part(vip)
	p.adrift, p.held = p.adrift || p.held, false
}

// Settled notes whether all connections of the VIP are known that another holder has:
// then what turns up from here on begins now.
func (b *Book) Settled(vip netip.Addr, settled bool) { b.part(vip).settled = settled }

func (b *Book) part(vip netip.Addr) *part {
	p := b.vips[vip]
	if p == nil {
		if b.vips == nil {
			b.vips = map[netip.Addr]*part{}
		}
		p = &part{vip: vip}
		b.vips[vip] = p
	}
	return p
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
		if known {
			out = b.lapsed(out, s.Key, e, at, d)
		}
		e = b.enter(s, d)
		held := e.part.held
		if e.whole = held; held || e.part.settled {
			e.began = at.UnixNano()
		}
		if b.Starts && held {
			out = append(out, Record{Event: StartEvent, Time: at})
			b.describe(&out[len(out)-1], s.Key, &e, d)
		}
	case Closed:
		if !same {
			if known {
				out = b.lapsed(out, s.Key, e, at, d)
			}
			b.found++
			e = b.enter(s, d)
		}
		if e.closed == 0 {
			e.closed, e.reset = at.UnixNano(), s.Reset
		}
		if !b.Counting && !e.written {
			e.written = true
			out = b.ended(out, s, &e, at, d, "")
		}
	case Gone:
		return b.gone(out, s, e, same, at, d)
	default:
		return out
	}
	b.open[s.Key] = e
	return out
}

// gone ends a connection; e is what is known of it if it is the same.
func (b *Book) gone(out []Record, s *Sighting, e entry, same bool, at time.Time, d *Directory) []Record {
	p := e.part
	if !same {
		p = b.part(s.VIP)
	}
	switch {
	case same && p.adrift:
		p.ends = append(p.ends, end{*s, at})
		return out
	case same:
		delete(b.open, s.Key)
	case !p.held:
		return out // a standby's copy, or the heir's
	default:
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
	case !p.held && s.Replied:
		return out // the holder was told of it, and has it on record, or will
	case !p.held:
		reason = Moved
	case e.pod.Name != "" && !b.has(s.Key, e.pod, d):
		reason = PodGone
	case d.routes[e.route].gone:
		reason = RouteGone
	case s.Expired:
		reason = Timeout
	}
	return b.ended(out, s, &e, at, d, reason)
}

func (b *Book) enter(s *Sighting, d *Directory) entry {
	if b.open == nil {
		b.open = map[Key]entry{}
	}
	return entry{pod: b.whose(s.Key, d), part: b.part(s.VIP), id: s.ID, route: s.Route, port: s.Port}
}

// ended appends the record of an end. What has closed did so then, for that reason.
func (b *Book) ended(out []Record, s *Sighting, e *entry, at time.Time, d *Directory, reason Reason) []Record {
	out = append(out, Record{Event: EndEvent, Time: at, Reason: reason})
	r := &out[len(out)-1]
	b.describe(r, s.Key, e, d)
	if e.closed != 0 {
		r.Time, r.Reason = time.Unix(0, e.closed), Finished
		if e.reset {
			r.Reason = Reset
		}
	}
	r.Time = r.Time.UTC()
	r.Answered = s.Replied || e.closed != 0 && !e.reset
	r.Counted, r.Sent, r.Received = s.Counted, s.Sent, s.Received
	return out
}

// describe the connection in its record.
func (b *Book) describe(r *Record, k Key, e *entry, d *Directory) {
	r.Gateway, r.Route, r.Pod = b.Gateway, d.routes[e.route].name, e.pod.Pod
	r.Source, r.SourcePort = k.src(), k.SrcPort
	r.VIP, r.Port = e.part.vip, e.port
	r.Destination, r.DestinationPort = k.dst(), k.DstPort
	r.Protocol, r.TakenOver = ProtocolName(k.Protocol), !e.whole
	if k.Protocol == 1 || k.Protocol == 58 {
		r.DestinationPort = 0
	}
	if e.began != 0 {
		r.Start = time.Unix(0, e.began).UTC()
	}
}
