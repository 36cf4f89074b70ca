package priority

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// lookEvery is how long the heap grows unseen.
	lookEvery = 20 * time.Millisecond
	// leastRoom is how much garbage is left alone, as the runtime does.
	leastRoom = 4 << 20
	// small is a heap that is collected within some milliseconds of all processors.
	small = 16 << 20
)

// Collect collects garbage in place of the runtime until the context ends, where real
// time is in force: the collector waits for a thread that runs Go code by spinning, with
// sched_yield(2) between (runtime.suspendG), which in real time lets nobody run who is less
// urgent. If that thread was one of ordinary priority, which had no processor, packets and
// all other programs had one less until it was done: 139 ms were seen. So no thread is
// less urgent than another meanwhile.
func Collect(ctx context.Context) {
	if !inRealTime.Load() {
		return
	}
	percent := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(percent)
	if percent < 0 {
		return
	}
	// Whoever looks at the heap waits for those who are just allocating, spinning as well.
	NotRealTime(func() {
		c := newCollector(percent)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				c.look()
			}
		}
	})
}

// collector keeps the runtime's own pace.
type collector struct {
	percent uint64 // GOGC
	live    uint64 // bytes that the last collection left
	heap    []metrics.Sample
}

func newCollector(percent int) *collector {
	c := &collector{percent: uint64(percent), heap: []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}}
	c.pace()
	return c
}

func (c *collector) size() uint64 {
	metrics.Read(c.heap)
	return c.heap[0].Value.Uint64()
}

func (c *collector) look() {
	if c.size() < c.live+max(c.live, leastRoom)*c.percent/100 {
		return
	}
	level := realtime
	if c.live > small { // it would keep packets from the processors for too long
		level = niced
	}
	done := make(chan struct{})
	evenly(level, func() {
		go func() { // a thread of its own would be changed for another at every step of it
			defer close(done)
			runtime.GC()
			c.pace()
		}()
		<-done
	})
}

// pace begins anew. The runtime goes on by itself some way beyond that, should the heap
// grow faster than it is looked at; and it is by that how much free memory it keeps.
func (c *collector) pace() {
	c.live = c.size()
	debug.SetGCPercent(int(2 * c.percent * (max(c.live, 1) + leastRoom) / max(c.live, 1)))
}
