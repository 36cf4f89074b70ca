package replica

import (
	"net/netip"
	"sync"

	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/gateway"
)

// ended is what this replica's view knows to be over: addresses whose pod is gone
// and that nobody has since, and routes. A holder that has not seen it yet may still
// tell of their connections.
type ended struct {
	mu     sync.RWMutex // held for reading while connections are taken over
	addrs  map[netip.Addr]bool
	routes map[uint16]bool
}

func (e *ended) has(f flows.Flow) bool { return e.addrs[f.Src] || e.routes[routeOf(f.Mark)] }

// note takes what is over since the view before. When it returns, nothing that has ended is
// taken over any more, and what was has been.
func (e *ended) note(over []netip.Addr, now gateway.Standing, routesBefore, routes map[uint16]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.addrs == nil {
		e.addrs, e.routes = map[netip.Addr]bool{}, map[uint16]bool{}
	}
	for _, addr := range over {
		if _, has := now[addr]; !has {
			e.addrs[addr] = true
		}
	}
	for addr := range e.addrs {
		if _, has := now[addr]; has {
			delete(e.addrs, addr)
		}
	}
	for id := range routesBefore {
		e.routes[id] = !routes[id]
	}
	for id, over := range e.routes {
		if !over || routes[id] {
			delete(e.routes, id)
		}
	}
}
