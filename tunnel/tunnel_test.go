package tunnel

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var (
	local = netip.MustParseAddr("192.0.2.1")
	vipA  = netip.MustParseAddr("192.0.2.10")
	vipB  = netip.MustParseAddr("192.0.2.11")
)

func TestMarksValidate(t *testing.T) {
	for mask, ok := range map[uint32]bool{
		0: false, 1: false, 0x100: false, 0x300: true, 0x3f00: true, 0x3: true,
		0x3f01: false, 0xf0f0: false, 0xffffffff: true, 0xc0000000: true, 0x80000000: false,
	} {
		if err := (Marks{mask}).Validate(); (err == nil) != ok {
			t.Errorf("mask %#x: %v", mask, err)
		}
	}
}

func TestConfigValidateNamesEverything(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	err := Config{Device: "eth0", VNI: 1 << 24, RulePriority: 32766, TableBase: 200, Marks: Marks{0x101}}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"eth0"`, "--tunnel-port", "--tunnel-vni 16777216", "--rule-priority 32766", "--table-base 200", "--mark-mask 0x101"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	long := DefaultConfig()
	long.Device = "sally-and-longer"
	wide := DefaultConfig()
	wide.Marks.Mask, wide.TableBase = 0xffffffff, 256
	for _, c := range []Config{long, wide} {
		if c.Validate() == nil {
			t.Errorf("%+v passes", c)
		}
	}
}

// Slots are a function of the set of VIPs: no order, no doubles, none shared, none
// that means "no mark" or "reply".
func TestSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Marks{Mask: rapid.SampledFrom([]uint32{0x300, 0x700, 0x3f00, 0xff0000, 0xf0000000}).Draw(t, "mask")}
		hosts := rapid.SliceOfNDistinct(rapid.Byte(), 0, m.Down()-1, rapid.ID[byte]).Draw(t, "hosts")
		var vips []netip.Addr
		for _, h := range hosts {
			vips = append(vips, netip.AddrFrom4([4]byte{192, 0, 2, h}))
		}
		slots, err := m.Slots(vips)
		if err != nil {
			t.Fatal(err)
		}
		taken := map[int]bool{}
		for v, s := range slots {
			if s < 1 || s >= m.Down() || taken[s] {
				t.Fatalf("%s has slot %d of %v", v, s, slots)
			}
			taken[s] = true
			if value := m.Value(s); value == 0 || value&^m.Mask != 0 || value == m.Value(m.Down()) {
				t.Fatalf("slot %d has mark %#x", s, value)
			}
		}
		shuffled := rapid.Permutation(append(slices.Clone(vips), vips...)).Draw(t, "shuffled")
		again, err := m.Slots(shuffled)
		if err != nil || len(again) != len(slots) {
			t.Fatal(again, err)
		}
		for v, s := range slots {
			if again[v] != s {
				t.Fatalf("%s has slot %d, and %d in another order", v, s, again[v])
			}
		}
	})
}

func TestTooManyVIPsNameTheCure(t *testing.T) {
	_, err := Marks{0x300}.Slots([]netip.Addr{local, vipA, vipB})
	if err == nil || !strings.Contains(err.Error(), "--mark-mask") || !strings.Contains(err.Error(), "3 VIPs") {
		t.Errorf("error is %v", err)
	}
	if _, err := (Config{Marks: Marks{0x300}}).Up(local, []Remote{{vipA, vipA}, {vipB, vipB}, {local, local}}); err == nil {
		t.Error("Up gave a plan for more VIPs than there are marks")
	}
}

func TestUp(t *testing.T) {
	cfg := DefaultConfig()
	inside := netip.MustParseAddr("10.0.0.10")
	plan, err := cfg.Up(local, []Remote{{VIP: vipB, Inside: vipB}, {VIP: vipA, Inside: inside}})
	if err != nil {
		t.Fatal(err)
	}
	slots, err := cfg.Marks.Slots([]netip.Addr{vipA, vipB})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Local != local || plan.FirstTable != 5301 || plan.LastTable != 5330 || len(plan.Rules) != 2 || len(plan.Routes) != 4 {
		t.Fatalf("plan is %+v", plan)
	}
	for v, remote := range map[netip.Addr]netip.Addr{vipA: inside, vipB: vipB} {
		table := cfg.TableBase + slots[v]
		if !slices.Contains(plan.Rules, Rule{Value: uint32(slots[v]) << 8, Mask: 0x1f00, Table: table, Priority: 95}) {
			t.Errorf("no rule for %s in %v", v, plan.Rules)
		}
		for _, r := range []Route{
			{Table: table, Dst: netip.MustParsePrefix("0.0.0.0/0"), Remote: remote},
			{Table: table, Dst: netip.PrefixFrom(remote, 32)}, // throw
		} {
			if !slices.Contains(plan.Routes, r) {
				t.Errorf("no route %v in %v", r, plan.Routes)
			}
		}
	}
}

func TestUpOfIPv6(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::10")
	plan, err := DefaultConfig().Up(netip.MustParseAddr("2001:db8::1"), []Remote{{six, six}})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(plan.Routes[0].Dst, plan.Routes[1].Dst); got != "::/0 2001:db8::10/128" {
		t.Errorf("routes to %s", got)
	}
}

// The plans of the two programs have no table in common, and every table of each
// is its own.
func TestPlansKeepToTheirTables(t *testing.T) {
	cfg := DefaultConfig()
	nodeOf := map[netip.Addr]netip.Addr{}
	for i := range 200 {
		nodeOf[netip.AddrFrom4([4]byte{10, 244, 0, byte(i)})] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 5)})
	}
	down := cfg.Downward(local, maps.All(nodeOf))
	up, err := cfg.Up(local, []Remote{{vipA, vipA}, {vipB, vipB}})
	if err != nil {
		t.Fatal(err)
	}
	if up.LastTable >= down.FirstTable {
		t.Errorf("tables %d-%d and %d-%d", up.FirstTable, up.LastTable, down.FirstTable, down.LastTable)
	}
	for _, p := range []Plan{up, down} {
		for _, r := range p.Routes {
			if r.Table < p.FirstTable || r.Table > p.LastTable {
				t.Errorf("%v outside of %d-%d", r, p.FirstTable, p.LastTable)
			}
		}
		for _, r := range p.Rules {
			if r.Table < p.FirstTable || r.Table > p.LastTable {
				t.Errorf("%v outside of %d-%d", r, p.FirstTable, p.LastTable)
			}
		}
	}
	if len(down.Routes) != 200 || len(down.Rules) != 1 || down.Rules[0].Value != 0x1f00 {
		t.Errorf("%d routes, rules %v", len(down.Routes), down.Rules)
	}
	if !slices.EqualFunc(down.Routes, cfg.Downward(local, maps.All(nodeOf)).Routes, func(a, b Route) bool { return a == b }) {
		t.Error("equal input gave another order")
	}
}
