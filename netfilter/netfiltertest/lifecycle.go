package netfiltertest

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	nf "github.com/sallyport/sallyport/netfilter"
)

// lifecycle checks that applying again changes nothing, that counters survive, and
// that taking out leaves the host as it was.
func (s Suite) lifecycle(t *testing.T) {
	l := newLab(t, s)
	for _, cmd := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
		// What another has here already; it also makes the kernel's built-in chains
		// appear, which the variants leave behind when empty.
		for _, at := range []string{"raw -A PREROUTING", "raw -A OUTPUT", "mangle -A PREROUTING", "mangle -A FORWARD", "filter -A INPUT", "filter -A FORWARD", "nat -A POSTROUTING"} {
			l.run(l.router, cmd, strings.Fields("-t "+at+" -m mark --mark 0xdead -j ACCEPT")...)
		}
	}
	before := l.dump()
	table := steering(map[string]int{pods[0]: 0}, []nf.Target{target(markB, "203.0.113.0/24")})
	table.Sets = []nf.Set{{Name: "peers", Addrs: addrs("192.0.2.1", "192.0.2.2")}}
	other := table
	other.Name = "sally_other"
	six := nf.Table{Name: tableName, IPv6: true, Chains: []nf.Chain{{Name: "drop", Hook: nf.ForwardFilter, Rules: []nf.Rule{{Match: nf.Match{In: "none0"}, Action: nf.Drop{}}}}}}
	l.apply(table)
	l.via("b", "udp", pods[0], servers[0]+":443")
	l.expect(map[string]uint64{"by_b": 1, "by_c": 0, "selected": 0, "unselected": 0})

	first := l.dump()
	l.apply(table)
	if again := l.dump(); again != first {
		t.Errorf("applied again, the rules are other:\n%s\nthan before:\n%s", again, first)
	}
	changed := steering(map[string]int{pods[0]: 0, pods[1]: 1}, []nf.Target{target(markB, "203.0.113.0/24")}, []nf.Target{target(markC, "203.0.113.0/24")})
	changed.Counters = append(changed.Counters, "another")
	changed.Chains[0].Rules = append(changed.Chains[0].Rules, nf.Rule{Match: nf.Match{In: "none0"}, Count: "another"})
	l.apply(changed)
	l.via("b", "udp", pods[0], servers[0]+":443")
	l.via("c", "udp", pods[1], servers[0]+":443")
	l.expect(map[string]uint64{"by_b": 2, "by_c": 1, "selected": 0, "unselected": 0, "another": 0})

	l.apply(other)
	if !s.NoIPv6 {
		l.apply(six)
	}
	l.in(func() error { return l.applier.Remove(context.Background(), other.Name) })
	l.via("b", "udp", pods[0], servers[0]+":443")
	l.in(func() error { return l.applier.Cleanup(context.Background()) })
	if after := l.dump(); after != before {
		t.Errorf("after Cleanup:\n%s\nbefore:\n%s", after, before)
	}
	l.via("out", "udp", pods[0], servers[0]+":443")
	l.in(func() error { return l.applier.Cleanup(context.Background()) }) // nothing to do is no error
	l.in(func() error { return l.applier.Remove(context.Background(), tableName) })
}

// repair checks that Apply undoes what others did to our objects.
func (s Suite) repair(t *testing.T) {
	l := newLab(t, s)
	table := steering(map[string]int{pods[0]: 0}, []nf.Target{target(markB, "203.0.113.0/24")})
	l.apply(table)
	whole := l.dump()
	l.in(func() error { return l.applier.Cleanup(context.Background()) })
	l.via("out", "udp", pods[0], servers[0]+":443")
	l.apply(table)
	if again := l.dump(); again != whole {
		t.Errorf("repaired, the rules are other:\n%s\nthan before:\n%s", again, whole)
	}
	l.via("b", "udp", pods[0], servers[0]+":443")
}

// swap replaces tables under traffic: every packet must meet one of them whole.
func (s Suite) swap(t *testing.T) {
	l := newLab(t, s)
	base := []nf.Target{target(markB, "203.0.113.0/24", udp(443, 443))}
	many := map[string]int{pods[0]: 1}
	for i := range 200 {
		many[netip.AddrFrom4([4]byte{10, 245, 0, byte(i)}).String()] = 0
	}
	tables := []nf.Table{
		steering(map[string]int{pods[0]: 0}, base),
		steering(many, []nf.Target{target(markC, "198.51.100.0/24")}, []nf.Target{target(markB, "203.0.113.0/25"), target(markC, "203.0.113.128/25")}),
		steering(map[string]int{pods[0]: 1, pods[1]: 0}, []nf.Target{target(markC, "203.0.113.0/24")}, append([]nf.Target{target(markC, "203.0.113.0/24")}, base...)),
	}
	tables[1].Chains[0].Rules = append([]nf.Rule{{Match: nf.Match{In: "none0"}, Action: nf.Drop{}}}, tables[1].Chains[0].Rules...)
	l.apply(tables[0])
	stop, done := make(chan struct{}), make(chan [3]int)
	go func() {
		var right, wrong, lost int
		for {
			select {
			case <-stop:
				done <- [3]int{right, wrong, lost}
				return
			default:
			}
			// Each from a new port, so that each is classified.
			c, err := l.dial("udp", pods[0], 0, servers[0]+":443")
			if err != nil {
				lost++
				continue
			}
			got, _, err := c.ask(time.Second)
			_ = c.conn.Close()
			switch {
			case err != nil:
				lost++
			case got.way == "b":
				right++
			default:
				wrong++
			}
		}
	}()
	for i := range 30 {
		l.apply(tables[i%len(tables)])
	}
	close(stop)
	got := <-done
	t.Logf("%d packets right, %d wrong, %d lost", got[0], got[1], got[2])
	if got[0] < 30 || got[1] > 0 || got[2] > 0 {
		t.Errorf("%d packets right, %d wrong, %d lost, want some, none, none", got[0], got[1], got[2])
	}
}
