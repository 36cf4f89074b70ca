package layer2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"
)

// FenceTable is the name of the fence's tables: one for ARP, one for IPv4, and one for
// what leaves by the VIPs' interfaces.
const FenceTable = "sally_fence"

const (
	fenced = "fenced" // the counter
	held   = "held"   // the set of addresses that are let through, each with a timeout
	vips   = "vips"   // the set of addresses that move
)

// Fence keeps the kernel from using an address that this host does not hold: from
// answering ARP for it, from taking packets sent to it, and from sending with it
// as source. It opens for a time and closes by itself, whatever becomes of the process.
//
// It is renewed from the packet path, not by nft transactions: those wait, in the
// kernel, for the transaction of anybody else in this network namespace (tens of
// milliseconds for a service proxy's), and would then run for as much too long.
type Fence struct {
	host *Host

	reading sync.Mutex // a renewal never waits for a reader
	nft     *nftables.Conn

	guarding sync.Mutex
	guards   map[string]string // chain by interface

	mu    sync.Mutex
	addrs []netip.Addr
	rungs []time.Duration              // durations the kernel has a rule for, longest first
	until map[netip.Addr]time.Duration // CLOCK_BOOTTIME, what this process renewed
	sure  map[netip.Addr]time.Duration // until when no table of the fence has closed
	loop  int                          // index of lo
	pass  Pass                         // nil: nothing goes past the tables
	ajar  map[netip.Addr]bool          // what may
}

// NewFence gives the host's fence, whoever installed it.
func NewFence(h *Host) (*Fence, error) {
	f := &Fence{host: h, guards: map[string]string{}, until: map[netip.Addr]time.Duration{}, sure: map[netip.Addr]time.Duration{}, ajar: map[netip.Addr]bool{}}
	err := h.inside(func() error {
		var err error
		f.nft, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink: %w", err)
	}
	return f, nil
}

// Stop gives the fence's socket back and leaves the fence standing.
func (f *Fence) Stop() error { return f.nft.CloseLasting() }

// Shortest is the shortest time the fence can be opened for. The kernel counts
// timeouts in ticks: less than one would be none, which is forever.
const Shortest = 10 * time.Millisecond

// ladder is the durations that Renew can ask for, from the longest down. Most of a
// lease is left when it is renewed: there the steps are finest, so that rounding down
// costs little.
func ladder(longest time.Duration) []time.Duration {
	longest = max(longest.Truncate(time.Millisecond), Shortest)
	var rungs []time.Duration
	for d := longest; d > Shortest; {
		rungs = append(rungs, d)
		step := d / 16
		if d > longest/2 {
			step = longest / 64
		}
		d -= max(2*time.Millisecond, step.Truncate(time.Millisecond))
	}
	return append(rungs, Shortest)
}

// firstRung is the number that stands for the longest duration, in the IP header's
// identification and as ARP operation; the one before it closes. Real ARP
// operations are below 26 (IANA, "ARP Parameters").
const firstRung = 257

// number stands for rung i: to keep open what is open, or to open what is closed.
func number(rungs []time.Duration, i int, opening bool) uint16 {
	if opening {
		i += len(rungs)
	}
	return uint16(firstRung + i)
}

// Install puts the fence up, closed, around the addresses, and removes what was
// there before, in one transaction: at the start of a gateway nothing is held.
// Longest is the longest time Renew will be asked for, a lease.
func (f *Fence) Install(ctx context.Context, addrs []netip.Addr, longest time.Duration) error {
	for _, a := range addrs {
		if !a.Is4() {
			return fmt.Errorf("fence %s: only IPv4 addresses can be fenced yet", a)
		}
	}
	lo, err := f.host.links.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("install the fence: find lo: %w", err)
	}
	rungs := ladder(longest)
	f.guarding.Lock()
	f.reading.Lock()
	f.unguard()
	f.reading.Unlock()
	f.guarding.Unlock()
	err = f.host.rules(ctx, func(tx *knftables.Transaction) error {
		replaceTable(tx, knftables.ARPFamily, addrs, longest)
		arpRules(tx, rungs)
		replaceTable(tx, knftables.IPv4Family, addrs, longest)
		ipRules(tx, rungs)
		return nil
	})
	if err != nil {
		return fmt.Errorf("install the fence (tables %s): %w", FenceTable, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs, f.rungs, f.loop = addrs, rungs, lo.Attrs().Index
	clear(f.until)
	clear(f.sure)
	return f.tellAll()
}

func replaceTable(tx *knftables.Transaction, family knftables.Family, addrs []netip.Addr, longest time.Duration) {
	table := &knftables.Table{Family: family, Name: FenceTable}
	tx.Add(table)
	tx.Delete(table)
	tx.Add(table)
	tx.Add(&knftables.Counter{Family: family, Table: FenceTable, Name: fenced})
	tx.Add(&knftables.Set{
		Family: family, Table: FenceTable, Name: vips, Type: "ipv4_addr",
		// Every packet is looked up in it; a set of known size gets the kernel's fastest hash.
		Size: knftables.PtrTo(uint64(max(1, len(addrs)))),
	})
	tx.Add(&knftables.Set{
		Family: family, Table: FenceTable, Name: held, Type: "ipv4_addr",
		Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag},
		Size:  knftables.PtrTo[uint64](65535),
		// Without a timeout of the set's own, an element added without one would stay forever.
		Timeout: knftables.PtrTo(max(longest, time.Second).Round(time.Second)),
	})
	for _, a := range slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare) {
		tx.Add(&knftables.Element{Family: family, Table: FenceTable, Set: vips, Key: []string{a.String()}})
	}
}

// arpRules silences ARP for what is not held. Renewals are ARP frames that this host
// sends to itself through lo.
func arpRules(tx *knftables.Transaction, rungs []time.Duration) {
	c := chains{tx, knftables.ARPFamily}
	c.add("ladder", "", 0)
	c.rule("ladder", "arp operation", firstRung-1, "delete @held { arp saddr ip } drop")
	for i, d := range rungs {
		// Both alike: frames may be lost here, and what one of them opens late the guard stops.
		c.rule("ladder", "arp operation {", number(rungs, i, false), ",", number(rungs, i, true), "} update @held { arp saddr ip timeout", ms(d), "} drop")
	}
	c.add("input", knftables.InputHook, -10) // before an arptables that takes no strange operations
	c.rule("input", `iifname "lo" arp operation >=`, firstRung-1, "arp saddr ip @vips goto ladder")
	c.add("output", knftables.OutputHook, 0)
	c.rule("output", "arp saddr ip @vips arp saddr ip != @held counter name fenced drop")
}

// ipRules: renewals are packets from the address to 127.0.0.1, of a protocol number
// nobody uses, and never leave the output hook. Only root can send such.
func ipRules(tx *knftables.Transaction, rungs []time.Duration) {
	renewal := "ip daddr 127.0.0.1 ip protocol " + strconv.Itoa(renewProtocol) + " ip saddr @vips"
	c := chains{tx, knftables.IPv4Family}
	c.add("ladder", "", 0)
	c.rule("ladder", "ip id", firstRung-1, "delete @held { ip saddr } drop")
	for i, d := range rungs {
		c.rule("ladder", "ip id", number(rungs, i, false), "ip saddr @held update @held { ip saddr timeout", ms(d), "} drop")
		c.rule("ladder", "ip id", number(rungs, i, true), "update @held { ip saddr timeout", ms(d), "} drop")
	}
	// Before everything of ours, which begins at -301.
	c.add("renew", knftables.OutputHook, -310)
	c.rule("renew", renewal, "goto ladder")
	c.add("prerouting", knftables.PreroutingHook, -310)
	c.rule("prerouting", renewal, "drop")
	c.rule("prerouting", "ip daddr @vips ip daddr != @held fib daddr type local counter name fenced drop")
	// Behind NAT at 100: what was translated before the fence closed, and what this
	// host itself sends from the address.
	c.add("postrouting", knftables.PostroutingHook, 110)
	// A renewal that no rung took is to come through, so that its sender learns it.
	c.rule("postrouting", renewal, "accept")
	c.rule("postrouting", "ip saddr @vips ip saddr != @held counter name fenced drop")
}

type chains struct {
	tx     *knftables.Transaction
	family knftables.Family
}

func (c chains) add(name string, hook knftables.BaseChainHook, priority int) {
	chain := &knftables.Chain{Family: c.family, Table: FenceTable, Name: name}
	if hook != "" {
		chain.Type = knftables.PtrTo(knftables.FilterType)
		chain.Hook = knftables.PtrTo(hook)
		chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(strconv.Itoa(priority)))
	}
	c.tx.Add(chain)
}

func (c chains) rule(chain string, parts ...any) {
	c.tx.Add(&knftables.Rule{Family: c.family, Table: FenceTable, Chain: chain, Rule: knftables.Concat(parts...)})
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) + "ms" }

// Remove takes the fence down. It is no error if there is none.
func (f *Fence) Remove() error {
	f.mu.Lock()
	f.rungs = nil
	clear(f.until)
	clear(f.sure)
	errs := []error{f.tellAll()}
	f.mu.Unlock()
	f.guarding.Lock()
	clear(f.guards)
	f.guarding.Unlock()
	f.reading.Lock()
	defer f.reading.Unlock()
	for _, t := range tables() {
		f.nft.DelTable(t)
		if err := f.nft.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove table %s of the fence: %w", FenceTable, err))
		}
	}
	return errors.Join(errs...)
}

func tables() []*nftables.Table {
	return []*nftables.Table{
		{Name: FenceTable, Family: nftables.TableFamilyARP},
		{Name: FenceTable, Family: nftables.TableFamilyIPv4},
		guardTable(),
	}
}

// Held is which addresses the kernel lets packets through for and for how long yet. Where there
// is no fence it is empty.
func (f *Fence) Held() (map[netip.Addr]time.Duration, error) {
	f.reading.Lock()
	defer f.reading.Unlock()
	set := &nftables.Set{Table: tables()[1], Name: held, KeyType: nftables.TypeIPAddr, HasTimeout: true}
	elements, err := f.nft.GetSetElements(set)
	if err != nil && f.absent(set.Table) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read set %s of the fence: %w", held, err)
	}
	out := make(map[netip.Addr]time.Duration, len(elements))
	for _, e := range elements {
		if addr, ok := netip.AddrFromSlice(e.Key); ok {
			out[addr] = e.Expires
		}
	}
	return out, nil
}

// absent says that there is no fence; the library's errors do not tell.
func (f *Fence) absent(t *nftables.Table) bool {
	all, err := f.nft.ListTablesOfFamily(t.Family)
	return err == nil && !slices.ContainsFunc(all, func(x *nftables.Table) bool { return x.Name == t.Name })
}

// Dropped is how many packets and ARP frames the fence has stopped.
func (f *Fence) Dropped() (uint64, error) {
	f.reading.Lock()
	defer f.reading.Unlock()
	var sum uint64
	for _, t := range tables() {
		obj, err := f.nft.GetObject(&nftables.NamedObj{Table: t, Name: fenced, Type: nftables.ObjTypeCounter})
		if err != nil && f.absent(t) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read counter %s of the fence: %w", fenced, err)
		}
		if n, ok := obj.(*nftables.NamedObj); ok {
			if c, ok := n.Obj.(*expr.Counter); ok {
				sum += c.Packets
			}
		}
	}
	return sum, nil
}

// rung is the longest of the ladder that is no longer than d.
func rung(rungs []time.Duration, d time.Duration) (int, bool) {
	i, _ := slices.BinarySearchFunc(rungs, d, func(r, d time.Duration) int { return cmp.Compare(d, r) })
	return i, i < len(rungs)
}
