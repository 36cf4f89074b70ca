package replica

import (
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/audit"
)

// told is one thing to take down: a sighting, or what the election says of a VIP.
type told struct {
	at     time.Time
	what   note
	seen   audit.Sighting
	vip    netip.Addr
	holder string
}

// note is what told is about, besides sightings.
type note uint8

const (
	sighted   note = iota
	holding        // who holds the VIP
	drifting       // this gateway no more, and nobody is known to
	inStep         // all its connections are known that the holder has
	outOfStep      // no more
)

// queue is what is to be taken down yet. Who puts something in never waits.
type queue struct {
	most int // sightings; of others there are few

	mu      sync.Mutex
	waiting []told
	gaps    gaps
}

// gaps are what the kernel's table is to be looked at for.
type gaps struct {
	began   uint64 // connections whose beginning was left out since the last look
	left    bool   // something was left out
	overrun bool   // by the kernel
	fresh   bool   // there are routes whose connections of before are to be looked up
}

func (g gaps) and(o gaps) gaps {
	return gaps{g.began + o.began, g.left || o.left, g.overrun || o.overrun, g.fresh || o.fresh}
}

// put keeps what was told, if there is room. The caller has locked.
func (q *queue) put(t *told) {
	if len(q.waiting) < q.most || t.what != sighted {
		q.waiting = append(q.waiting, *t)
		return
	}
	q.gaps.left = true
	if t.seen.Kind == audit.Began {
		q.gaps.began++
	}
}

// note keeps what the election says.
func (q *queue) note(t told) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.put(&t)
}

// owe notes what is to be looked up.
func (q *queue) owe(g gaps) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gaps = q.gaps.and(g)
}

// owed takes that.
func (q *queue) owed() gaps {
	q.mu.Lock()
	defer q.mu.Unlock()
	g := q.gaps
	q.gaps = gaps{}
	return g
}

func (q *queue) incomplete() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.gaps.fresh || q.gaps.left
}

// take what waits, and leave an empty one in its place.
func (q *queue) take(empty []told) []told {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting = empty[:0]
	return all
}
