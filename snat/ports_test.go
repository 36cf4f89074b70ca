package snat

import (
	"net/netip"
	"testing"
	"time"

	nf "github.com/sallyport/sallyport/netfilter"
)

var (
	countedVIP = netip.MustParseAddr("192.0.2.10")
	bank       = Destination{Addr: netip.MustParseAddr("203.0.113.1"), Port: 443, Protocol: 6}
)

func TestPortsAreCountedByDestinationAndRange(t *testing.T) {
	c := NewPortCount(Config{NodePorts: nf.Ports{First: 30000, Last: 32767}})
	udp := bank
	udp.Protocol = 17
	other := netip.MustParseAddr("192.0.2.11")
	for port := uint16(32768); port < 32868; port++ {
		c.Add(countedVIP, bank, port)
		c.Add(other, bank, port)
	}
	c.Add(other, bank, 40000)
	for port := uint16(1024); port < 1084; port++ {
		c.Add(countedVIP, bank, port)
		c.Add(countedVIP, udp, port)
	}
	c.Add(countedVIP, bank, 31000) // of no range
	c.Add(countedVIP, Destination{Addr: bank.Addr, Protocol: 1}, 40000)
	got := c.Worst(countedVIP, 10)
	want := []PortUse{
		{Destination: bank, Range: nf.Ports{First: 32768, Last: 65535}, Used: 100, Usable: 32768},
		{Destination: udp, Range: nf.Ports{First: 1024, Last: 29999}, Used: 60, Usable: 28976},
	}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("counted %v, want %v", got, want)
	}
	if got := c.Worst(countedVIP, 1); len(got) != 1 || got[0] != want[0] {
		t.Errorf("the worst one is %v, want %v", got, want[0])
	}
	if got, some := c.Towards(countedVIP, bank); !some || got != want[0] {
		t.Errorf("towards the bank %v, want %v", got, want[0])
	}
	if got, some := c.Towards(other, udp); some {
		t.Errorf("towards nobody %v", got)
	}
	if got := c.Worst(other, 10); len(got) != 1 || got[0].Used != 101 {
		t.Errorf("of the other VIP %v, want 101 ports", got)
	}
	// Every port of a range counts, its ends too, and every protocol that has ports.
	for _, p := range []nf.Ports{{First: 1024, Last: 29999}, {First: 32768, Last: 65535}} {
		ends := NewPortCount(Config{NodePorts: nf.Ports{First: 30000, Last: 32767}})
		sctp := Destination{Addr: bank.Addr, Port: 3868, Protocol: 132}
		ends.Add(countedVIP, sctp, p.First)
		ends.Add(countedVIP, sctp, p.Last)
		if got, _ := ends.Towards(countedVIP, sctp); got.Used != 2 || got.Range != p {
			t.Errorf("of the ends of %s %v are counted", p, got)
		}
	}
	if got := bank.String(); got != "203.0.113.1:443/tcp" {
		t.Errorf("the destination reads %s", got)
	}
}

func TestPortsWithoutNodePorts(t *testing.T) {
	for _, c := range []Config{{}, {NodePorts: nf.Ports{First: 1, Last: 65535}}} {
		count := NewPortCount(c)
		count.Add(countedVIP, bank, 31000)
		if got := count.Worst(countedVIP, 1); len(got) != 1 || got[0].Usable != 64512 {
			t.Errorf("with NodePorts %s: %v, want 64512 usable ports", c.NodePorts, got)
		}
	}
}

// Every range that is counted is one that the rules translate to.
func TestCountedRangesAreThoseOfTheRules(t *testing.T) {
	for _, nodePorts := range []nf.Ports{{First: 30000, Last: 32767}, {First: 1024, Last: 2000}, {First: 60000, Last: 65535}, {First: 1, Last: 500}} {
		cfg := Config{NodePorts: nodePorts}
		translated := map[nf.Ports]bool{}
		for _, r := range translate(cfg, nf.Masked{}, countedVIP) {
			if to := r.Action.(nf.SNAT); to.Ports != (nf.Ports{}) {
				translated[to.Ports] = true
			}
		}
		counted := NewPortCount(cfg).pools
		if len(counted) != len(translated) {
			t.Errorf("NodePorts %s: %v are counted, %v translated to", nodePorts, counted, translated)
		}
		for _, p := range counted {
			if !translated[p] {
				t.Errorf("NodePorts %s: %s is counted and never translated to", nodePorts, p)
			}
		}
	}
}

func TestForecast(t *testing.T) {
	note := func(used ...int) Forecast {
		var trend Trend
		var last Forecast
		for i, n := range used {
			at := time.Duration(i) * 15 * time.Second
			last = trend.Note(at, map[netip.Addr][]PortUse{countedVIP: {{Destination: bank, Used: n, Usable: 1000}}})[countedVIP][0]
		}
		return last
	}
	for name, c := range map[string]struct {
		used []int
		left time.Duration
	}{
		"steady growth":       {[]int{100, 250, 400, 550}, 45 * time.Second},
		"growth with jitter":  {[]int{100, 90, 120, 110, 140, 130}, 1575 * time.Second},
		"too few counts":      {[]int{100, 250, 400}, Never},
		"no growth":           {[]int{300, 300, 300, 300}, Never},
		"becoming free":       {[]int{900, 800, 700, 600}, Never},
		"nothing is left":     {[]int{1000}, 0},
		"slower than a year":  {[]int{1, 1, 1, 1, 1, 1, 1, 1}, Never},
		"one port in the end": {[]int{996, 997, 998, 999}, 15 * time.Second},
	} {
		if got := note(c.used...); (got.Left-c.left).Abs() > time.Second || (got.Left == Never) != (c.left == Never) {
			t.Errorf("%s: %v left at %.3f a second, want %v", name, got.Left, got.Growth, c.left)
		}
	}
}

func TestATrendForgetsWhatIsOld(t *testing.T) {
	var trend Trend
	use := map[netip.Addr][]PortUse{countedVIP: {{Destination: bank, Used: 900, Usable: 1000}}}
	for i := range 20 { // growth until long ago
		use[countedVIP][0].Used = 10 * i
		trend.Note(time.Duration(i)*time.Second, use)
	}
	var got Forecast
	for i := range 5 {
		got = trend.Note(time.Hour+time.Duration(i)*time.Minute, use)[countedVIP][0]
	}
	if got.Left != Never {
		t.Errorf("%v left at %.3f a second, though nothing has grown for an hour", got.Left, got.Growth)
	}
	trend.Note(2*time.Hour, nil)
	if len(trend.seen) != 0 {
		t.Errorf("%d destinations are remembered that nobody asks for", len(trend.seen))
	}
}

// A destination's use is of the range that is fullest: another one has a trend of its own.
func TestATrendIsOfOneRange(t *testing.T) {
	var trend Trend
	last := Forecast{}
	for i, first := range []uint16{1024, 1024, 32768, 32768, 32768} {
		use := PortUse{Destination: bank, Range: nf.Ports{First: first, Last: first + 999}, Used: 100 * (i + 1), Usable: 1000}
		last = trend.Note(time.Duration(i)*15*time.Second, map[netip.Addr][]PortUse{countedVIP: {use}})[countedVIP][0]
	}
	if last.Growth != 0 || last.Left != Never {
		t.Errorf("three counts of a range make %+v", last)
	}
}
