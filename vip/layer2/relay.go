package layer2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/sallyport/sallyport/vip"
)

// RelayTable is the name of the relay's table, of the netdev family.
const RelayTable = "sally_relay"

const (
	relayed  = "relayed"  // the counter
	gateways = "gateways" // the set of addresses that other gateways send from
	queues   = "queues"   // the map of what the room for waiting packets was, by interface
)

// Relay passes on what comes to this host for a VIP that it has handed over. Neighbours
// learn within milliseconds that a VIP has moved, and until then they send here: such
// a packet goes out again as it came, to whoever answers for the VIP. While nobody does, the
// kernel's queue for an address that is being resolved keeps it (arp_queue,
// net/core/neighbour.c), which is made larger meanwhile, so that between two holders
// packets are late and not lost.
//
// It works before the packet is routed: forwarded as any other it would meet the
// rules of this host, and the sender would be told of a shorter way. Nothing is translated
// and nothing leaves with the VIP as source. A VIP that this host has is left alone, so that
// a relay that outlives its purpose does no harm.
//
// What the heir's own node sent into the tunnel comes back to it, with an address of its
// own as source, which no kernel takes from outside (martian source). Such a packet gets
// this host's address instead.
type Relay struct {
	host *Host
	vips []vip.VIP
	port uint16 // UDP, of the tunnel
	log  *slog.Logger

	mu     sync.Mutex
	nft    *nftables.Conn
	users  int
	before map[int]uint32 // the room for waiting packets, by interface, which is larger now
}

// NewRelay is for the VIPs that have an interface here, and the tunnel's UDP port.
func NewRelay(h *Host, vips []vip.VIP, port uint16, log *slog.Logger) (*Relay, error) {
	r := &Relay{host: h, vips: vips, port: port, log: log, before: map[int]uint32{}}
	err := h.inside(func() error {
		var err error
		r.nft, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink: %w", err)
	}
	return r, nil
}

// Stop gives the relay's socket back.
func (r *Relay) Stop() error { return r.nft.CloseLasting() }

// Up puts the relay there until as many calls of Down. It changes nothing as long as
// this host has the VIPs. The others are the addresses of all hosts that may be the heir.
func (r *Relay) Up(ctx context.Context, others []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, err := r.install(ctx, others)
	if err != nil {
		return fmt.Errorf("install the relay (table %s; needs nft_fwd_netdev and nft_fib_netdev): %w", RelayTable, err)
	}
	r.users++
	for index, bytes := range before {
		r.before[index] = bytes
		if err := r.host.setQueue(index, max(bytes, waitingRoom)); err != nil {
			r.log.Warn("few packets can wait while the VIP moves", "interface", index, "error", err)
		}
	}
	return nil
}

// install brings the rules into the kernel, and what the queues are that are to be
// made larger, for whoever finds the table.
func (r *Relay) install(ctx context.Context, others []netip.Addr) (before map[int]uint32, err error) {
	err = r.host.rules(ctx, func(tx *knftables.Transaction) (err error) {
		if r.users == 0 {
			if before, err = r.queues(); err != nil {
				return err
			}
			if err := r.table(tx, before); err != nil {
				return err
			}
		}
		for _, a := range others {
			if a.Is4() {
				tx.Add(&knftables.Element{Family: knftables.NetDevFamily, Table: RelayTable, Set: gateways, Key: []string{a.String()}})
			}
		}
		return nil
	})
	return before, err
}

func (r *Relay) table(tx *knftables.Transaction, before map[int]uint32) error {
	table := &knftables.Table{Family: knftables.NetDevFamily, Name: RelayTable}
	tx.Add(table)
	tx.Delete(table)
	tx.Add(table)
	tx.Add(&knftables.Counter{Family: knftables.NetDevFamily, Table: RelayTable, Name: relayed})
	tx.Add(&knftables.Set{Family: knftables.NetDevFamily, Table: RelayTable, Name: gateways, Type: "ipv4_addr"})
	tx.Add(&knftables.Map{Family: knftables.NetDevFamily, Table: RelayTable, Name: queues, Type: "iface_index : mark"})
	for _, index := range slices.Sorted(maps.Keys(before)) {
		tx.Add(&knftables.Element{
			Family: knftables.NetDevFamily, Table: RelayTable, Map: queues,
			Key: []string{strconv.Itoa(index)}, Value: []string{strconv.FormatUint(uint64(before[index]), 10)},
		})
	}
	here, err := r.host.Interfaces()
	if err != nil {
		return err
	}
	chains := map[string]string{} // by interface, whose name need not be one for a chain
	for _, v := range r.vips {
		for i, addr := range v.Addrs() {
			iface := []string{v.Interface, v.ViaInterface}[i]
			own, err := r.own(here, addr, iface)
			if err != nil {
				return err
			}
			r.rules(tx, chains, addr.String(), own.String(), iface)
		}
	}
	return nil
}

// own is the address that this host sends from to others on the VIP's subnet, as the
// kernel chooses it: other gateways take it for a node's.
func (r *Relay) own(here []vip.Interface, addr netip.Addr, iface string) (netip.Addr, error) {
	var own netip.Addr
	for _, i := range here {
		for _, p := range i.Prefixes {
			if i.Name != iface || !p.Addr().Is4() || slices.ContainsFunc(r.vips, func(v vip.VIP) bool { return slices.Contains(v.Addrs(), p.Addr()) }) {
				continue
			}
			if p.Contains(addr) {
				return p.Addr(), nil
			}
			if !own.IsValid() {
				own = p.Addr()
			}
		}
	}
	if !own.IsValid() {
		return own, fmt.Errorf("%s has no IPv4 address but VIPs: give it one", iface)
	}
	return own, nil
}

func (r *Relay) rules(tx *knftables.Transaction, chains map[string]string, addr, own, iface string) {
	if chains[iface] == "" {
		chains[iface] = "in" + strconv.Itoa(len(chains))
		tx.Add(&knftables.Chain{
			Family: knftables.NetDevFamily, Table: RelayTable, Name: chains[iface],
			Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.IngressHook),
			Priority: knftables.PtrTo(knftables.BaseChainPriority("-500")), Device: knftables.PtrTo(iface),
		})
	}
	// What a card in promiscuous mode overhears is not for this host to pass on.
	moved := knftables.Concat("meta pkttype host ip daddr", addr, "fib daddr type != local")
	for _, then := range []string{
		knftables.Concat("ip saddr @"+gateways, "udp dport", r.port, "ip saddr set", own),
		knftables.Concat("counter name", relayed, "fwd ip to", addr, "device", strconv.Quote(iface)),
	} {
		tx.Add(&knftables.Rule{Family: knftables.NetDevFamily, Table: RelayTable, Chain: chains[iface], Rule: knftables.Concat(moved, then)})
	}
}

// Down takes the relay away when nobody needs it any more.
func (r *Relay) Down() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users--; r.users > 0 {
		return nil
	}
	return r.remove()
}

// Remove takes away what an earlier process left. It is no error if there is nothing.
func (r *Relay) Remove() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users = 0
	return r.remove()
}

func (r *Relay) remove() error {
	restored := r.restoreQueues()
	r.nft.DelTable(relayTable())
	if err := r.nft.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return errors.Join(restored, fmt.Errorf("remove table %s of the relay: %w", RelayTable, err))
	}
	return restored
}

func relayTable() *nftables.Table {
	return &nftables.Table{Name: RelayTable, Family: nftables.TableFamilyNetdev}
}

// Passed is how many packets the relay has passed on since it was put up.
func (r *Relay) Passed() (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	obj, err := r.nft.GetObject(&nftables.NamedObj{Table: relayTable(), Name: relayed, Type: nftables.ObjTypeCounter})
	if err != nil {
		return 0, fmt.Errorf("read counter %s of the relay: %w", relayed, err)
	}
	if n, ok := obj.(*nftables.NamedObj); ok {
		if c, ok := n.Obj.(*expr.Counter); ok {
			return c.Packets, nil
		}
	}
	return 0, fmt.Errorf("read counter %s of the relay: it is no counter", relayed)
}
