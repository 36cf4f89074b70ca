package steer

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/gateway"
)

// taken is what the two look-ups say of a connection.
func (r Retries) taken(from, to netip.Addr, port uint16) bool {
	class, is := r.Classes[from]
	if !is {
		return false
	}
	for bits := to.BitLen(); bits >= 0; bits-- {
		p, _ := to.Prefix(bits)
		if ports, is := r.Destinations[Destination{Class: class, Prefix: p}]; is {
			for _, x := range ports {
				if x.First <= port && port <= x.Last {
					return true
				}
			}
			return false // the longest prefix has the answer
		}
	}
	return false
}

// routed says the same by going through the pod's routes.
func routed(plan gateway.Plan, from, to netip.Addr, port uint16) bool {
	for _, pod := range plan.Pods {
		for _, r := range pod.Routes {
			if pod.Addr != from {
				continue
			}
			for _, d := range plan.Routes[r].Destinations {
				excepted := slices.ContainsFunc(d.Except, func(x netip.Prefix) bool { return x.Contains(to) })
				fits := len(d.Ports) == 0 || slices.ContainsFunc(d.Ports, func(p gateway.Port) bool {
					return int(p.Protocol) == tcp && p.First <= port && port <= p.Last
				})
				if d.CIDR.Contains(to) && !excepted && fits {
					return true
				}
			}
		}
	}
	return false
}

// Addresses, ports and routes are few, so that they meet at their borders.
func TestRetriesAreTheConnectionsThatRoutesTake(t *testing.T) {
	addr := func(n uint8) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		p, _ := addr(rapid.Uint8Range(0, 15).Draw(t, "addr")).Prefix(rapid.IntRange(28, 32).Draw(t, "bits"))
		return p
	})
	ports := rapid.Custom(func(t *rapid.T) gateway.Port {
		first := rapid.Uint16Range(0, 5).Draw(t, "first")
		return gateway.Port{
			Protocol: gateway.Protocol(rapid.SampledFrom([]int{tcp, 17}).Draw(t, "protocol")),
			First:    first, Last: first + rapid.Uint16Range(0, 3).Draw(t, "more"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		var plan gateway.Plan
		for range rapid.IntRange(1, 3).Draw(t, "routes") {
			var r gateway.PlannedRoute
			for range rapid.IntRange(1, 3).Draw(t, "destinations") {
				r.Destinations = append(r.Destinations, gateway.Destination{
					CIDR: prefix.Draw(t, "cidr"), Except: rapid.SliceOfN(prefix, 0, 2).Draw(t, "except"),
					Ports: rapid.SliceOfN(ports, 0, 3).Draw(t, "ports"),
				})
			}
			plan.Routes = append(plan.Routes, r)
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "pods") {
			all := rapid.SliceOfNDistinct(rapid.IntRange(0, len(plan.Routes)-1), 1, -1, rapid.ID).Draw(t, "pod's routes")
			slices.Sort(all)
			plan.Pods = append(plan.Pods, gateway.PlannedPod{Addr: addr(uint8(100 + i)), Routes: all})
		}
		r := NewRetries(plan)
		for from := range 4 {
			for to := range 17 {
				for port := range uint16(10) {
					f, d := addr(uint8(100+from)), addr(uint8(to))
					if got, want := r.taken(f, d, port), routed(plan, f, d, port); got != want {
						t.Fatalf("%s to %s port %d: taken %v, want %v, by %+v", f, d, port, got, want, r)
					}
				}
			}
		}
	})
}

func TestARangeIsTheFewestPrefixes(t *testing.T) {
	for _, c := range []struct {
		first, last string
		want        []string
	}{
		{"10.0.0.1", "10.0.0.1", []string{"10.0.0.1/32"}},
		{"10.0.0.1", "10.0.0.6", []string{"10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"}},
		{"0.0.0.0", "255.255.255.255", []string{"0.0.0.0/0"}},
		{"255.255.255.254", "255.255.255.255", []string{"255.255.255.254/31"}},
		{"2001:db8::", "2001:db8::ffff", []string{"2001:db8::/112"}},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", []string{"::/0"}},
	} {
		var got []string
		for _, p := range prefixesOf(netip.MustParseAddr(c.first), netip.MustParseAddr(c.last)) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s to %s is %v, want %v", c.first, c.last, got, c.want)
		}
	}
}
