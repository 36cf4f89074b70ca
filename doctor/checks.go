package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/gateway"
)

// Check looks at one thing, on each host or of all together.
type Check struct {
	Name string
	Host func(Host) []Finding
	All  func([]Host) []Finding
}

// Checks are all of them.
var Checks = []Check{
	{Name: "applied", Host: applied},
	{Name: "view", Host: live},
	{Name: "problems", Host: told},
	{Name: "holder", All: holders},
	{Name: "version", All: versions},
	{Name: "clock", All: clocks},
	{Name: "priority", Host: priority},
	{Name: "replication", Host: replication},
	{Name: "mtu", Host: paths},
	{Name: "arp", Host: arp},
	{Name: "kube-proxy", Host: bound},
	{Name: "masquerade", Host: masquerade},
	{Name: "kernel", Host: kernel},
	{Name: "conntrack", Host: conntrack},
	{Name: "accounting", Host: accounting},
}

func one(s Severity, object, found, cure string) []Finding {
	return []Finding{{Severity: s, Object: object, Found: found, Cure: cure}}
}

func applied(h Host) []Finding {
	if h.Apply == "" {
		return nil
	}
	return one(Error, h.Program, "the view is not in the kernel: "+h.Apply, "see to what the error says; it is tried again")
}

func live(h Host) []Finding {
	if h.Live {
		return nil
	}
	if h.Viewless {
		return one(Error, h.Program, "has no view yet: the source gives none, and none was saved", "see to the API server, or the folder of --source: nothing is set up on the host until then")
	}
	return one(Warning, h.Program, "works from the view that it saved: the source gives none", "see to the API server, or the folder of --source")
}

// told are the program's own problems, whose messages name the cure.
func told(h Host) []Finding {
	var out []Finding
	for _, p := range h.Problems {
		s := Warning
		// Settings of the host, its Node, and another owner of a VIP; clashes with flags may work by luck.
		if p.Reason == gateway.Misconfigured && (strings.HasPrefix(p.Object, "sysctl ") || strings.HasPrefix(p.Object, "interface ") && p.Field == "") ||
			p.Reason == gateway.Duplicate && strings.HasPrefix(p.Object, "VIP ") || p.Reason == gateway.UnknownNode && strings.HasPrefix(p.Object, "Node ") ||
			p.Reason == gateway.Unreadable || p.Reason == gateway.UnknownVIP {
			s = Error
		}
		object, found := p.Object, p.Message
		if p.Field != "" {
			found = p.Field + ": " + found
		}
		out = append(out, Finding{Severity: s, Object: object, Found: found})
	}
	return out
}

func holders(hosts []Host) []Finding {
	type sight struct {
		held             []string
		voters, replicas int
		barred           string
		elsewhere        bool // a gateway that was not asked, or did not answer
	}
	seen := map[netip.Addr]sight{}
	asked := map[string]bool{}
	for _, h := range hosts {
		asked[h.Name] = true
	}
	for _, h := range hosts {
		if h.Program != "gateway" {
			continue
		}
		for _, v := range h.VIPs {
			s := seen[v.Addr]
			if v.Held {
				s.held = append(s.held, h.Node)
			}
			s.voters, s.replicas = max(s.voters, v.Voters), v.Replicas
			if v.Barred != "" {
				s.barred = v.Barred
			}
			s.elsewhere = s.elsewhere || v.Holder != "" && !asked[v.Holder]
			seen[v.Addr] = s
		}
	}
	var out []Finding
	for addr, s := range seen {
		object := "VIP " + addr.String()
		switch {
		case len(s.held) == 0 && s.elsewhere && s.voters > s.replicas/2:
			// Its own word is not to be had: a host alone was asked, or it is among the silent.
		case len(s.held) == 0 && s.voters <= s.replicas/2:
			out = append(out, one(Error, object, fmt.Sprintf("nobody holds it: at most %d of %d gateways hear each other", s.voters, s.replicas), "see to the gateways, and to the network between them")...)
		case len(s.held) == 0:
			out = append(out, one(Error, object, strings.TrimSuffix("no gateway that answers holds it: "+s.barred, ": "), "see the gateways' logs")...)
		case len(s.held) > 1:
			out = append(out, one(Error, object, "is held on "+strings.Join(s.held, " and "), "ask again: a hand-over takes a moment; else report it as a bug")...)
		case s.voters < s.replicas:
			out = append(out, one(Warning, object, fmt.Sprintf("%d of %d gateways are heard", s.voters, s.replicas), "bring the others back before another is lost")...)
		}
	}
	slices.SortFunc(out, func(a, b Finding) int { return strings.Compare(a.Object, b.Object) })
	return out
}

func versions(hosts []Host) []Finding {
	var all []string
	for _, h := range hosts {
		all = append(all, h.Version)
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) < 2 {
		return nil
	}
	return one(Warning, "versions", strings.Join(all, ", ")+" run at the same time", "finish the upgrade")
}

// apart is how far clocks may be apart. The election has no need of them; who compares logs has.
const apart = 2 * time.Second

func clocks(hosts []Host) []Finding {
	var out []Finding
	for _, h := range hosts {
		if off := h.Ahead.Abs() - h.Doubt; off > apart {
			out = append(out, Finding{
				Severity: Warning, Where: h.Node, Object: "clock",
				Found: fmt.Sprintf("is %v off the clock of who asks", h.Ahead.Round(time.Second)), Cure: "see to the host's time service: logs and events of nodes cannot be compared",
			})
		}
	}
	return out
}

func priority(h Host) []Finding {
	if !h.Unraised {
		return nil
	}
	return one(Warning, "scheduling", "the election runs at "+h.Priority,
		"give the gateway SYS_NICE and, for --priority realtime, a cgroup that has real time: on a busy host it is sooner taken for dead")
}

// lagging is how long a change may wait for a standby.
const lagging = time.Second

func replication(h Host) []Finding {
	var out []Finding
	for _, v := range h.VIPs {
		if !v.Held || v.Replicas < 2 {
			continue
		}
		object := "VIP " + v.Addr.String()
		if !v.Replicated {
			out = append(out, one(Info, object, "its connections are not replicated", "start the gateways without --replicate=false: connections then survive the loss of the holder")...)
			continue
		}
		ready := 0
		for _, s := range v.Standbys {
			switch {
			case !s.InStep:
				out = append(out, one(Warning, object, s.Name+" has not caught up with its connections", "wait for the snapshot; where it stays so, see the standby's log")...)
			case s.Lag > lagging:
				out = append(out, one(Warning, object, fmt.Sprintf("%s lags by %v", s.Name, s.Lag.Round(time.Millisecond)), "see to the load of the standby's host, and the network to it")...)
			default:
				ready++
			}
		}
		if ready == 0 {
			out = append(out, one(Warning, object, "no standby has its connections", "see to the other gateways: the loss of this one would end them")...)
		}
	}
	return out
}

func paths(h Host) []Finding {
	var out []Finding
	for _, p := range h.Paths {
		object := "way to " + p.To.String()
		switch found, cure := p.Narrow(); {
		case p.Error != "":
			out = append(out, one(Warning, object, "could not be probed: "+p.Error, "see the agent's log")...)
		case p.Largest == 0:
			out = append(out, one(Error, object, "no ping of any size comes back", "see who holds the VIP, and the network between")...)
		case found != "":
			out = append(out, one(Error, object, found, cure)...)
		}
	}
	return out
}

// Narrow says that small packets pass and those of the tunnel's size do not; "" when they do,
// or when nothing is known of any size.
func (p Path) Narrow() (found, cure string) {
	if p.Error != "" || p.Largest == 0 || p.Largest >= p.Size {
		return "", ""
	}
	return fmt.Sprintf("packets of %d bytes come back, of the tunnel's %d bytes not", p.Largest, p.Size),
		fmt.Sprintf("let %d bytes pass everywhere on the way, or lower the MTU of %s's underlay: large packets of steered pods are lost", p.Size, p.Device)
}

// arp are the settings with which the kernel does not answer for a /32
// (Documentation/networking/ip-sysctl.rst, arp_ignore).
func arp(h Host) []Finding {
	var out []Finding
	if h.Program != "gateway" {
		return nil
	}
	for _, v := range h.VIPs {
		if n := h.Kernel.ARPIgnore[v.Interface]; n == 2 || n == 8 {
			out = append(out, one(Error, "sysctl net.ipv4.conf."+v.Interface+".arp_ignore", fmt.Sprintf("is %d, so nobody is told where %s is", n, v.Addr),
				"set it, and net.ipv4.conf.all.arp_ignore, to 0 or 1; 1 is what kube-proxy's strict ARP sets")...)
		}
	}
	return out
}

func bound(h Host) []Finding {
	var out []Finding
	for _, v := range h.VIPs {
		if slices.Contains(h.Kernel.Bound, v.Addr) {
			out = append(out, one(Error, "interface kube-ipvs0", "kube-proxy has "+v.Addr.String()+" as an address of a Service", "take it out of the Service's externalIPs or loadBalancerIP, or choose another VIP")...)
		}
	}
	return out
}

func masquerade(h Host) []Finding {
	var out []Finding
	for _, chain := range h.Kernel.Earlier {
		out = append(out, one(Warning, chain, "translates sources before Sallyport does", "have that program use priority 96 or later: what it masquerades does not leave as the VIP")...)
	}
	return out
}

// kernel is by what was tried: distributions build features into old kernels, and leave
// them out of new ones. Maps of ranges of several fields came with Linux 5.6.
func kernel(h Host) []Finding {
	if len(h.Kernel.Missing) == 0 {
		return nil
	}
	return one(Error, "Linux "+h.Kernel.Release, "has not what the rules in nftables are made of: "+strings.Join(h.Kernel.Missing, ", "),
		"load or build its modules of nf_tables, upgrade to 5.6 or later, or use --netfilter iptables")
}

func conntrack(h Host) []Finding {
	k := h.Kernel
	if k.Unheard && h.Program == "gateway" {
		return one(Error, "sysctl net.netfilter.nf_conntrack_events", "is 0, so connections begun here are neither replicated nor audited",
			"set it to 2, as the kernel has it by itself, on this node; it holds for connections begun from then on")
	}
	const object = "connection tracking"
	const cure = "raise net.netfilter.nf_conntrack_max: a full table drops new connections of everybody on the host"
	switch {
	case k.Room == 0:
	case k.Connections >= k.Room*95/100:
		return one(Error, object, fmt.Sprintf("is full: %d of %d", k.Connections, k.Room), cure)
	case k.Connections >= k.Room*80/100:
		return one(Warning, object, fmt.Sprintf("is nearly full: %d of %d", k.Connections, k.Room), cure)
	}
	return nil
}

func accounting(h Host) []Finding {
	if !h.Kernel.Uncounted || len(h.Audits) == 0 {
		return nil
	}
	return one(Warning, "sysctl net.netfilter.nf_conntrack_acct", "is 0, so the audit of "+strings.Join(h.Audits, ", ")+" has no packets and bytes",
		"set it to 1 on this node, in /etc/sysctl.d or by a privileged DaemonSet; connections begun from then on are counted")
}
