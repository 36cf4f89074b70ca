package tcx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/steer/bpf"
)

// Address is a VIP that may be held here.
type Address struct {
	VIP, Inside  netip.Addr
	Outer, Inner int // the interfaces where partners and nodes reach it
}

// Front is what a gateway's programs have built in. The number of a VIP is its place.
type Front struct {
	Device
	VIPs []Address
}

// Equal tells whether two are the same.
func (g Front) Equal(h Front) bool { return g.Device == h.Device && slices.Equal(g.VIPs, h.VIPs) }

// Gateway carries established connections beside netfilter on a gateway: what their pods send becomes
// what the slow path makes of it, and what the partners answer likewise.
type Gateway struct {
	front Front
	pairs pairs
	links []link.Link
	long  *ringbuf.Reader
}

// OpenGateway attaches to a gateway's interfaces. No connection is known yet, and no VIP open.
func OpenGateway(g Front) (_ *Gateway, err error) {
	p := &Gateway{front: g}
	defer func() {
		if err != nil {
			err = errors.Join(bpf.Explain(err, "6.6", "CONFIG_BPF_SYSCALL and CONFIG_NET_XGRESS"), p.Close())
		}
	}()
	if len(g.VIPs) > mostVIPs {
		return nil, fmt.Errorf("%d VIPs are more than the %d that there is room for", len(g.VIPs), mostVIPs)
	}
	if p.pairs, err = newPairs(); err != nil {
		return nil, err
	}
	if p.long, err = ringbuf.NewReader(p.pairs.long); err != nil {
		return nil, fmt.Errorf("read a BPF map: %w", err)
	}
	type place struct {
		name  string
		at    ebpf.AttachType
		index int
	}
	at := map[place]asm.Instructions{
		{"sally_from_tun", ebpf.AttachTCXIngress, g.Index}: outFromTunnel(p.pairs, g),
		{"sally_lend_home", ebpf.AttachTCXEgress, g.Index}: lendHome(p.pairs, g),
	}
	for _, v := range g.VIPs {
		at[place{"sally_from_wire", ebpf.AttachTCXIngress, v.Inner}] = outFromWire(p.pairs, g)
		at[place{"sally_replies", ebpf.AttachTCXIngress, v.Outer}] = homeFromWire(p.pairs, g)
		at[place{"sally_lend_out", ebpf.AttachTCXEgress, v.Outer}] = lendOut(p.pairs, g)
	}
	for where, code := range at {
		l, err := attach(where.name, where.at, where.index, code)
		if err != nil {
			return nil, err
		}
		p.links = append(p.links, l)
	}
	return p, nil
}

// Until opens a VIP for packets that go beside netfilter, and so beside the fence, until an instant of
// CLOCK_BOOTTIME; 0 closes it.
func (p *Gateway) Until(vip netip.Addr, until time.Duration) error {
	i := p.number(vip)
	if i < 0 {
		return nil
	}
	if err := p.pairs.fence.Put(uint32(i), uint64(until)); err != nil {
		return fmt.Errorf("say until when %s may be used beside netfilter: %w", vip, err)
	}
	return nil
}

func (p *Gateway) number(vip netip.Addr) int {
	return slices.IndexFunc(p.front.VIPs, func(v Address) bool { return v.VIP == vip })
}

// Seen is a connection as the partner sees it, and the interface by which it left.
type Seen struct {
	Protocol     uint8
	VIP, Partner netip.AddrPort
	Interface    int
}

// Long waits until the slow path has translated some packets of a connection; os.ErrClosed after Close.
// One that is not let go is told of again.
func (p *Gateway) Long() (Seen, error) {
	var event struct {
		Key       key
		Interface uint64
	}
	r, err := p.long.Read()
	if errors.Is(err, ringbuf.ErrClosed) {
		return Seen{}, os.ErrClosed
	}
	if err == nil {
		_, err = binary.Decode(r.RawSample, binary.NativeEndian, &event)
	}
	if err != nil {
		return Seen{}, fmt.Errorf("hear of long connections: %w", err)
	}
	f := event.Key.flow()
	return Seen{Protocol: uint8(event.Key.Protocol), VIP: f.Src, Partner: f.Dst, Interface: int(event.Interface)}, nil
}

// Pair is a connection and its translation.
type Pair struct {
	Protocol          uint8
	Pod, VIP, Partner netip.AddrPort
	Node              netip.Addr // the pod's end of the tunnel
	Interface         int        // by which it leaves
	Counter           int        // of its route, below Counters
}

// Counters is how many routes can be counted.
const Counters = mostCounters / 2

// Let a connection go beside netfilter. It does so when the slow path has let out another packet of
// it, in either direction: if it has ended meanwhile, it never does.
func (p *Gateway) Let(c Pair) error {
	i := p.number(c.VIP.Addr())
	if i < 0 {
		return nil
	}
	now, err := boottime()
	if err != nil {
		return err
	}
	inside, outside := keyOf(c.Protocol, c.Pod, c.Partner), keyOf(c.Protocol, c.VIP, c.Partner)
	vip, pod := c.VIP.Addr().As4(), c.Pod.Addr().As4()
	var before homeward
	if p.pairs.home.Lookup(outside, &before) == nil && before.Open != 0 && before.inside(outside) != inside {
		if err := p.pairs.forget(before.inside(outside), outside); err != nil {
			return err
		}
	}
	home := homeward{
		Until: now, Remote: number(c.Node), Local: number(p.front.Local), Pod: pod, Port: inside.SrcPort, Sum: exchange(vip, pod),
		Fence: uint32(i), Counter: uint32(2*c.Counter + intoPods), Open: 1,
	}
	out := outward{
		Until: now, Node: c.Node.As4(), Inside: p.front.VIPs[i].Inside.As4(), VIP: vip, Port: outside.SrcPort, Sum: exchange(pod, vip),
		Fence: uint32(i), Counter: uint32(2*c.Counter + outOfPods), Interface: uint32(c.Interface), Open: 1,
	}
	home.Seal, out.Seal = p.pairs.seal.sealed(outside, home), p.pairs.seal.sealed(inside, out)
	if err = p.pairs.home.Put(outside, home); err == nil {
		err = p.pairs.out.Put(inside, out)
	}
	if err != nil {
		return fmt.Errorf("let %v to %v go beside netfilter: %w", c.Pod, c.Partner, err)
	}
	return nil
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// boottime is what the programs' clock says.
func boottime() (uint64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return uint64(now.Nano()), nil
}

// Known is a connection that may go beside netfilter, as far as somebody has to judge it.
type Known struct {
	Pod, Node netip.Addr
	Counter   int
}

// End what is over, at once. What was let go meanwhile gets no packet from the slow path any more.
func (p *Gateway) End(over func(Known) bool) error {
	type pair struct{ inside, outside key }
	var gone []pair
	err := p.pairs.each(func(outside key, h homeward) {
		var node [4]byte
		binary.BigEndian.PutUint32(node[:], h.Remote)
		if over(Known{Pod: netip.AddrFrom4(h.Pod), Node: netip.AddrFrom4(node), Counter: int(h.Counter / 2)}) {
			gone = append(gone, pair{h.inside(outside), outside})
		}
	})
	errs := []error{err}
	for _, g := range gone {
		errs = append(errs, p.pairs.forget(g.inside, g.outside))
	}
	return errors.Join(errs...)
}

// Counts of what went beside netfilter for a route since it was opened, out of pods and into them.
func (p *Gateway) Counts(counter int) (out, in Count, err error) {
	return p.pairs.count(uint32(2 * counter))
}

// Flows that may go beside netfilter at this moment.
func (p *Gateway) Flows() (n int, err error) {
	now, err := boottime()
	if err != nil {
		return 0, err
	}
	err = p.pairs.each(func(outside key, h homeward) {
		if h.Until > now {
			n++
			return
		}
		var o outward
		if p.pairs.out.Lookup(h.inside(outside), &o) == nil && o.Until > now {
			n++
		}
	})
	return n, err
}

// Front that it was opened for.
func (p *Gateway) Front() Front { return p.front }

// Close detaches it; packets take the slow path.
func (p *Gateway) Close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	if p.long != nil {
		errs = append(errs, p.long.Close())
	}
	return errors.Join(append(errs, p.pairs.close())...)
}
