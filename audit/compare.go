package audit

import (
	"cmp"
	"slices"
	"time"
)

// Missing is a connection that was not Present.
type Missing struct {
	key Key
	id  uint32
}

// Compare takes what is there for what the book should have. What it lacks is entered:
// the first time, what has closed by then was an earlier run's to write. What it has too
// much is missing, unless it is told to be gone yet.
func (b *Book) Compare(out []Record, present []Sighting, first bool, at time.Time, d *Directory) ([]Record, []Missing) {
	there := make(map[Key]bool, len(present))
	for i := range present {
		s := &present[i]
		if !d.routes[s.Route].audit {
			continue
		}
		there[s.Key] = true
		e, known := b.open[s.Key]
		if known && e.id == s.ID {
			continue
		}
		if known {
			out = b.lapsed(out, s.Key, e, at, d)
		}
		e = b.enter(s, d)
		b.found++
		if s.Over {
			e.closed, e.reset, e.written = at.UnixNano(), s.Reset, first
			if !b.Counting && !e.written {
				e.written = true
				out = b.ended(out, s, &e, at, d, "")
			}
		}
		b.open[s.Key] = e
	}
	var missing []Missing
	for k, e := range b.open {
		if !there[k] {
			missing = append(missing, Missing{k, e.id})
		}
	}
	return out, missing
}

// Miss ends what is missing still, when all was read that was told before.
func (b *Book) Miss(out []Record, missing []Missing, at time.Time, d *Directory) []Record {
	for _, m := range missing {
		e, known := b.open[m.key]
		// Of an end that was told while the VIP was adrift, Holder decides.
		if known && e.id == m.id && !e.part.adrift {
			delete(b.open, m.key)
			out = b.lapsed(out, m.key, e, at, d)
		}
	}
	return out
}

// lapsed appends the end, which nobody told, of a connection that is followed no more.
func (b *Book) lapsed(out []Record, k Key, e entry, at time.Time, d *Directory) []Record {
	if e.written || e.closed == 0 && !e.part.held {
		return out
	}
	return b.ended(out, &Sighting{Key: k}, &e, at, d, Unobserved)
}

// Stop appends what would be lost with the book: what has closed, and what goes on
// without anybody who follows it.
func (b *Book) Stop(out []Record, at time.Time, d *Directory) []Record {
	for _, p := range b.vips {
		if p.adrift { // nobody was known to hold it
			p.held, p.adrift = true, false
			out = b.late(out, p, d)
		}
	}
	first := len(out)
	for k, e := range b.open {
		if !e.written && (e.closed != 0 || e.part.held) {
			out = b.ended(out, &Sighting{Key: k}, &e, at, d, Stopped)
		}
	}
	slices.SortFunc(out[first:], func(x, y Record) int {
		return cmp.Or(x.Start.Compare(y.Start), x.Source.Compare(y.Source), cmp.Compare(x.SourcePort, y.SourcePort),
			x.Destination.Compare(y.Destination), cmp.Compare(x.DestinationPort, y.DestinationPort), cmp.Compare(x.Protocol, y.Protocol))
	})
	b.open = nil
	return out
}
