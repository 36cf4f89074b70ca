package gateway

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Tenancy tells which of a node's pods still live behind their addresses. The API
// hears last that a pod is gone; the node's network knows at once. What an address
// was allowed ends there with the pod's interface or route, so that the next pod with
// the address has none of it, even while the API still shows the old one.
type Tenancy struct {
	homes map[Tenant]Home
	gone  map[Tenant]*absence
	addrs map[netip.Addr]bool // of both: most have neither, where the network shows none
}

// Tenant is a pod at one of its addresses.
type Tenant struct {
	Addr netip.Addr
	Pod  string // namespace/name/uid
}

// Home is the interface of a node that an address is behind.
type Home struct {
	Interface int
	// Routed addresses have a route of their own to the interface; others are behind
	// a bridge's port, which the bridge forgets when the pod has been silent.
	Routed bool
}

// Network is what a node's network says of its pods.
type Network struct {
	Behind     map[netip.Addr]Home
	Interfaces map[int]bool
	// Closed says that no pod has come in since the node's boot: every address that the
	// view shows is of before, and the next pod with it may be another.
	Closed bool
}

// absence of a tenant whose interface or route is gone.
type absence struct {
	home  Home      // the one that is gone; zero since a boot
	other Home      // where the address has turned up since
	since time.Time // that it did
}

// Settled is what Settle found.
type Settled struct {
	Pods []Pod // with the addresses that they still live behind; to be read only
	Left []Tenant
	Back []Tenant
	// Again is when to ask anew though nothing changed; zero for never.
	Again time.Duration
}

// ReturnAfter is how long an address must have been behind another interface, with
// the API showing the same pod all the time, until it counts as that pod's again: a
// sandbox that was made anew. Were it a new pod's interface, the API would have said
// so by then.
const ReturnAfter = 10 * time.Second

// UnseenAfter is the same after a boot, for an address that the network does not show:
// some networks never do.
const UnseenAfter = time.Minute

// Settle brings the tenancy after the view and the network. Pods that the network
// never knew are believed to the view. With a view that is not the API's own at
// present, nobody comes back to another interface.
func (t *Tenancy) Settle(pods []Pod, network Network, live bool, now time.Time) Settled {
	var out Settled
	homes, gone := make(map[Tenant]Home, len(t.homes)), map[Tenant]*absence{}
	addrs := make(map[netip.Addr]bool, len(t.addrs))
	out.Pods = pods
	for n := range pods {
		p := &pods[n]
		if p.HostNetwork || p.Ended {
			continue
		}
		here, missing := p.Addrs, false
		stays := func(addr netip.Addr) {
			if missing {
				here = append(here, addr)
			}
		}
		for i, addr := range p.Addrs {
			at, seen := network.Behind[addr]
			if !seen && !t.addrs[addr] && !network.Closed { // the network never knew it
				stays(addr)
				continue
			}
			addrs[addr] = true
			who := Tenant{Addr: addr, Pod: p.Namespace + "/" + p.Name + "/" + p.UID}
			away, was := t.gone[who], t.gone[who] != nil
			home, housed := t.homes[who]
			switch {
			case was && at == away.home && seen: // the route to the same interface, so to the same sandbox
				home, housed, away = at, true, nil
			case was:
				if at != away.other {
					away.other, away.since = at, now
				}
				after := ReturnAfter
				if !seen {
					after = UnseenAfter
				}
				if (seen || away.home == Home{}) && live && !p.Terminating {
					left := after - now.Sub(away.since)
					if left <= 0 {
						home, housed, away = at, seen, nil
					} else if out.Again == 0 || left < out.Again {
						out.Again = left
					}
				}
			case housed && !network.has(addr, home):
				away = &absence{home: home, other: at, since: now}
				out.Left = append(out.Left, who)
				if seen && live && !p.Terminating && (out.Again == 0 || ReturnAfter < out.Again) {
					out.Again = ReturnAfter
				}
			case !housed && network.Closed:
				away = &absence{other: at, since: now}
				out.Again = cmp.Or(out.Again, ReturnAfter)
			case !housed && seen:
				home, housed = at, true
			}
			if away != nil {
				gone[who] = away
				if !missing {
					here, missing = slices.Clone(p.Addrs[:i]), true
				}
				continue
			}
			if was {
				out.Back = append(out.Back, who)
			}
			if housed {
				homes[who] = home
			}
			stays(addr)
		}
		if missing {
			if &out.Pods[0] == &pods[0] {
				out.Pods = slices.Clone(pods)
			}
			out.Pods[n].Addrs = here
		}
	}
	t.homes, t.gone, t.addrs = homes, gone, addrs
	slices.SortFunc(out.Left, compareTenants)
	slices.SortFunc(out.Back, compareTenants)
	return out
}

// Homes are where the addresses of the last Settle live; none of one that pods differ about.
func (t *Tenancy) Homes() map[netip.Addr]Home {
	homes := make(map[netip.Addr]Home, len(t.homes))
	for who, home := range t.homes {
		if other, is := homes[who.Addr]; is && other != home {
			home = Home{}
		}
		homes[who.Addr] = home
	}
	return homes
}

// has tells whether the address may still be behind the home.
func (n Network) has(addr netip.Addr, home Home) bool {
	if !n.Interfaces[home.Interface] {
		return false
	}
	return !home.Routed || n.Behind[addr] == home
}

func compareTenants(a, b Tenant) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Pod, b.Pod))
}
