package gateway

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Standing is which pods each address belongs to. What an address was allowed ends
// with its pods: the next pod with the address starts anew.
type Standing map[netip.Addr]Owner

// Owner is the pod that an address belongs to, or the pods; the zero Owner is nobody.
type Owner struct {
	namespace, name, uid string
	among                string // all of them, where there are several
}

func (o Owner) String() string { return o.namespace + "/" + o.name + "/" + o.uid }

// StandingOf the pods that live on the pod network. Where one has the address of others that
// are being deleted, it is that one's: their going ends nothing of its own.
func StandingOf(pods []Pod) Standing { return standingOf(pods, nil) }

// standingOf is that of some addresses only, or of all where none are given.
func standingOf(pods []Pod, only map[netip.Addr]bool) Standing {
	size := len(pods)
	if only != nil {
		size = len(only)
	}
	s := make(Standing, size)
	s.settle(pods, only, func(p *Pod, _ netip.Addr) bool { return !p.Terminating })
	s.settle(pods, only, func(p *Pod, addr netip.Addr) bool { return p.Terminating && s[addr] == Owner{} })
	return s
}

// settle gives the addresses to those of the pods that have a claim to them before it began.
func (s Standing) settle(pods []Pod, only map[netip.Addr]bool, claim func(*Pod, netip.Addr) bool) {
	claimed := map[netip.Addr]Owner{}
	var shared map[netip.Addr][]string
	for i := range pods {
		p := &pods[i]
		if p.Ended || p.HostNetwork {
			continue
		}
		for _, addr := range p.Addrs {
			if only != nil && !only[addr] || !claim(p, addr) {
				continue
			}
			owner := Owner{namespace: p.Namespace, name: p.Name, uid: p.UID}
			if first, taken := claimed[addr]; taken {
				if shared == nil {
					shared = map[netip.Addr][]string{}
				}
				if shared[addr] == nil {
					shared[addr] = []string{first.String()}
				}
				shared[addr] = append(shared[addr], owner.String())
				continue
			}
			claimed[addr] = owner
		}
	}
	for addr, owners := range shared {
		slices.Sort(owners)
		claimed[addr] = Owner{among: strings.Join(owners, " ")}
	}
	maps.Copy(s, claimed)
}

// Follow makes the Standing of the pods before that of the pods now, where few of them
// differ, and gives what was of the addresses that have ended.
func (s Standing) Follow(before, now []Pod) (ended Standing) {
	touched := map[netip.Addr]bool{}
	touch := func(pods []Pod, i int) {
		if i < len(pods) {
			for _, addr := range pods[i].Addrs {
				touched[addr] = true
			}
		}
	}
	for i := range max(len(before), len(now)) {
		if i >= len(before) || i >= len(now) || !sameTenant(&before[i], &now[i]) {
			touch(before, i)
			touch(now, i)
		}
	}
	ended = Standing{}
	if len(touched) == 0 {
		return ended
	}
	owners := standingOf(now, touched)
	for addr := range touched {
		was, is := s[addr], owners[addr]
		if was != is && was != (Owner{}) {
			ended[addr] = was
		}
		if is != (Owner{}) {
			s[addr] = is
		} else {
			delete(s, addr)
		}
	}
	return ended
}

func sameTenant(a, b *Pod) bool {
	return a.Name == b.Name && a.UID == b.UID && a.Namespace == b.Namespace && a.Ended == b.Ended && a.HostNetwork == b.HostNetwork &&
		a.Terminating == b.Terminating && slices.Equal(a.Addrs, b.Addrs)
}

// AddrsOf the pods that live on the pod network, as they come.
func AddrsOf(pods []Pod) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(pods))
	for i := range pods {
		if p := &pods[i]; !p.Ended && !p.HostNetwork {
			addrs = append(addrs, p.Addrs...)
		}
	}
	return addrs
}

// Ended tells whether what is known of the address from before belongs to nobody
// any more. With no Standing from before, that is so for addresses of no pod.
func (s Standing) Ended(before Standing, addr netip.Addr) bool {
	if before == nil {
		return s[addr] == Owner{}
	}
	owner := before[addr]
	return owner != Owner{} && owner != s[addr]
}

// Over are the addresses of which Ended is true, where there is a Standing from before.
func (s Standing) Over(before Standing) []netip.Addr {
	var over []netip.Addr
	for addr, owner := range before {
		if s[addr] != owner {
			over = append(over, addr)
		}
	}
	return over
}
