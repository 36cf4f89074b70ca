package flows

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Position is up to where a table has what holders told: everything before the holder
// of Term, and of that one all up to batch Seq.
type Position struct{ Term, Seq uint64 }

// After tells whether a table with p has what one with q lacks.
func (p Position) After(q Position) bool {
	return cmp.Or(cmp.Compare(p.Term, q.Term), cmp.Compare(p.Seq, q.Seq)) > 0
}

// Position of the holder's own table, as others will see it.
func (l *Log) Position() Position {
	p := Position{Term: l.Term, Seq: l.next() - 1}
	if len(l.pending) > 0 {
		p.Seq++
	}
	return p
}

const (
	// recent is how long after an election what a standby has not can have ended for
	// that. Later, entries of either table may be gone for want of packets alone.
	recent = 10 * time.Second
	// crowd is how many may be told of before none is told from the others.
	crowd = 1 << 16
)

// Raise begins a newer term of the same holder.
func (l *Log) Raise(term uint64, now time.Duration) {
	if term <= l.Term {
		return
	}
	l.own = append(l.own, l.Term)
	// One that is forgotten costs no more than a table that is asked for in vain.
	if n := len(l.own); n > 256 {
		l.own = slices.Clone(l.own[n-128:])
	}
	l.Term, l.renewed, l.news = term, now, newNews()
}

// note what the kernel tells of: there its own word is the latest.
func (l *Log) note(now time.Duration, k Key) {
	if l.news == nil {
		return
	}
	if l.owed[k] {
		delete(l.owed, k)
		return
	}
	l.news.add(k)
	if len(l.news.sums) > crowd || now-l.renewed > recent {
		l.news = nil
	}
}

// Lacks tells whether a standby's table has what the holder's has not: another held
// whom the holder did not follow to the end, or never heard of. Where neither knows
// what it has, as after a start of all, either may.
func (l *Log) Lacks(standby Position, now time.Duration) bool {
	late := l.news == nil || now-l.renewed > recent
	switch {
	case standby == (Position{}):
		return l.Have == standby && len(l.own) == 0 && !late
	case standby.Term == l.Have.Term:
		return standby.Seq > l.Have.Seq && !late // of a tail most has ended by then, unheard of there
	}
	return standby.Term > l.Have.Term && standby.Term != l.Term && !slices.Contains(l.own, standby.Term)
}

// Adoption takes a standby's newer table into the holder's. What the holder's kernel told
// of since its election stays as it is there.
type Adoption struct {
	log    *Log
	from   Position
	before map[Key]Flow // what the holder has and the standby has not shown
}

// Adopt begins one. table is the holder's, of which all that could be told must have been
// added: what began here and nobody was told of would be taken for ended elsewhere.
func (l *Log) Adopt(from Position, table []Flow) *Adoption {
	l.owed = map[Key]bool{}
	a := &Adoption{log: l, from: from, before: make(map[Key]Flow, len(table))}
	for _, f := range table {
		a.before[f.Key] = f
	}
	return a
}

// Step takes the next message of the standby's snapshot, and gives what to change;
// done tells that it was the last one.
func (a *Adoption) Step(now time.Duration, m Message) (changes []Change, done bool, err error) {
	switch m.Kind {
	case Snapshot:
		for _, c := range m.Changes {
			own, there := a.before[c.Flow.Key]
			delete(a.before, c.Flow.Key)
			switch {
			case a.log.news.has(c.Flow.Key) || there && own.Port == c.Flow.Port:
			case there && a.log.news != nil:
				changes = append(changes, Change{Op: Replace, Flow: c.Flow})
				a.log.owed[c.Flow.Key] = true
			case !there:
				changes = append(changes, Change{Op: Put, Flow: c.Flow})
			}
		}
		return changes, false, nil
	case End:
		if a.log.news != nil && now-a.log.renewed <= recent {
			for k, f := range a.before {
				if !a.log.news.has(k) {
					changes = append(changes, Change{Op: Delete, Flow: f})
					a.log.owed[k] = true
				}
			}
			slices.SortFunc(changes, func(a, b Change) int { return a.Flow.Compare(b.Flow.Key) })
		}
		return changes, true, nil
	case Merge:
		return nil, true, nil
	}
	return nil, false, fmt.Errorf("a message of kind %d came where a standby's table was due", m.Kind)
}

// Done notes that the holder's kernel has it, and that all that it told of that was added.
func (a *Adoption) Done() {
	if a.from.After(a.log.Have) {
		a.log.Have = a.from
	}
	a.log.owed = nil
}
