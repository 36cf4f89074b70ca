package gateway

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// Classifier turns the plan's pods and routes into the look-up that agents and
// gateways share; value is what a hit on a route yields. Pods with the same routes
// share a class.
func Classifier(name string, plan Plan, value func(PlannedRoute) uint32) netfilter.Classifier {
	c := netfilter.Classifier{Name: name, Sources: make([]netfilter.Source, len(plan.Pods))}
	classOf, shared := map[string]int{}, map[list]int{}
	for i := range plan.Pods {
		pod := &plan.Pods[i]
		very := list{&pod.Routes[0], len(pod.Routes)}
		if class, known := shared[very]; known {
			c.Sources[i] = netfilter.Source{Addr: pod.Addr, Class: class}
			continue
		}
		var key strings.Builder
		for _, r := range pod.Routes {
			key.WriteString(strconv.Itoa(r))
			key.WriteByte(',')
		}
		class, known := classOf[key.String()]
		if !known {
			class = len(c.Classes)
			classOf[key.String()] = class
			var targets []netfilter.Target
			for _, r := range pod.Routes {
				targets = append(targets, targetsOf(plan.Routes[r], value(plan.Routes[r]))...)
			}
			c.Classes = append(c.Classes, targets)
		}
		c.Sources[i], shared[very] = netfilter.Source{Addr: pod.Addr, Class: class}, class
	}
	return c
}

// list tells a slice that pods share from others like it.
type list struct {
	first *int
	size  int
}

func targetsOf(r PlannedRoute, value uint32) []netfilter.Target {
	targets := make([]netfilter.Target, 0, len(r.Destinations))
	for _, d := range r.Destinations {
		t := netfilter.Target{CIDR: d.CIDR, Except: d.Except, Value: value}
		for _, p := range d.Ports {
			t.Ports = append(t.Ports, netfilter.ProtocolPorts{
				Protocol: uint8(p.Protocol), Ports: netfilter.Ports{First: p.First, Last: p.Last},
			})
		}
		targets = append(targets, t)
	}
	return targets
}

// SortedAddrs returns the addresses sorted and without doubles.
func SortedAddrs(addrs []netip.Addr) []netip.Addr {
	sorted := slices.Clone(addrs)
	if !slices.IsSortedFunc(sorted, netip.Addr.Compare) {
		slices.SortFunc(sorted, netip.Addr.Compare)
	}
	return slices.Compact(sorted)
}
