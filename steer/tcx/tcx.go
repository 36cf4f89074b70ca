// Package tcx carries the packets of established connections beside netfilter on their
// pod's node. The slow path, netfilter and routes, decides about the first packets of
// every flow, and again about one in each second; BPF programs send the others where it
// sent that one, and give the replies to the pod. They can send nowhere but into the
// tunnel, to the end that the slow path chose: what they do not know, or not any more,
// takes the slow path.
//
// It needs Linux 6.6 (tcx). It lives as long as the process and leaves nothing behind.
package tcx

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/steer/bpf"
)

// Device is the tunnel, as the programs have it built in.
type Device struct {
	Index, MTU int
	Port       uint16
	VNI        uint32
	Local      netip.Addr // the node's tunnel end
	// Underlay is the interface by which tunnel packets may come and go past the host's
	// netfilter; 0: none may.
	Underlay            int
	FirstPort, LastPort uint16 // of which the source ports are
	TTL                 uint8
}

// State is what the slow path is about.
type State struct {
	Homes   map[netip.Addr]int // selected pods' addresses, and the interfaces they live behind
	Remotes []netip.Addr       // where their packets may go in the tunnel
	Peers   []netip.Addr       // from where tunnel packets may come
}

// Equal tells whether two states are the same.
func (s State) Equal(t State) bool {
	return maps.Equal(s.Homes, t.Homes) && slices.Equal(s.Remotes, t.Remotes) && slices.Equal(s.Peers, t.Peers)
}

// Path is attached to the tunnel, the underlay and the interfaces of pods.
type Path struct {
	device Device
	kernel kernel
	pod    *ebpf.Program
	links  []link.Link
	pods   map[int]link.Link // by interface
	long   *ringbuf.Reader
	ends   map[uint32]bool // of the tunnel, that flows may have
}

// Open attaches to a device. No flow is known yet.
func Open(d Device) (_ *Path, err error) {
	p := &Path{device: d, pods: map[int]link.Link{}}
	defer func() {
		if err != nil {
			err = errors.Join(bpf.Explain(err, "6.6", "CONFIG_BPF_SYSCALL and CONFIG_NET_XGRESS"), p.Close())
		}
	}()
	if p.kernel, err = newKernel(); err != nil {
		return nil, err
	}
	if p.pod, err = load("sally_from_pod", ebpf.AttachTCXIngress, fromPod(p.kernel, d)); err != nil {
		return nil, err
	}
	if p.long, err = ringbuf.NewReader(p.kernel.long); err != nil {
		return nil, fmt.Errorf("read a BPF map: %w", err)
	}
	if err := p.attach("sally_from_tun", ebpf.AttachTCXIngress, d.Index, fromTunnel(p.kernel)); err != nil {
		return nil, err
	}
	if d.Underlay != 0 {
		if err := p.attach("sally_from_wire", ebpf.AttachTCXIngress, d.Underlay, fromWire(p.kernel, d)); err != nil {
			return nil, err
		}
	}
	return p, p.attach("sally_learn", ebpf.AttachTCXEgress, d.Index, learn(p.kernel, d))
}

// load a program. bpf_fib_lookup is for those whose licence is compatible with the GPL.
func load(name string, at ebpf.AttachType, code asm.Instructions) (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, AttachType: at, Instructions: code, License: "Dual MIT/GPL"})
	if err != nil {
		return nil, fmt.Errorf("load the BPF program %s: %w", name, err)
	}
	return p, nil
}

func attach(name string, at ebpf.AttachType, index int, code asm.Instructions) (link.Link, error) {
	prog, err := load(name, at, code)
	if err != nil {
		return nil, err
	}
	defer prog.Close() // the link keeps it
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: prog, Attach: at})
	if err != nil {
		return nil, fmt.Errorf("attach a BPF program to interface %d: %w", index, err)
	}
	return l, nil
}

func (p *Path) attach(name string, at ebpf.AttachType, index int, code asm.Instructions) error {
	l, err := attach(name, at, index, code)
	if err == nil {
		p.links = append(p.links, l)
	}
	return err
}

// Apply makes the path know these pods and no others. It ends, at once, what flows of
// other pods, or to other tunnel ends, had left.
func (p *Path) Apply(s State) error {
	fits, err := fit()
	if err != nil {
		return err
	}
	homes, peers := map[[4]byte]uint32{}, map[[4]byte]uint32{}
	wanted := map[int]bool{}
	for a, index := range s.Homes {
		if fits[index] {
			homes[a.As4()] = uint32(index)
			wanted[index] = true
		}
	}
	for _, a := range s.Peers {
		peers[a.As4()] = 0
	}
	_, err = equal(p.kernel.peers, peers, "nodes")
	less, homesErr := equal(p.kernel.homes, homes, "pods")
	errs := []error{err, homesErr}
	for index, l := range p.pods {
		if !wanted[index] {
			_ = l.Close() // the kernel did it when the interface went
			delete(p.pods, index)
		}
	}
	for index := range wanted {
		if p.pods[index] != nil {
			continue
		}
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p.pod, Attach: ebpf.AttachTCXIngress})
		if errors.Is(err, unix.ENODEV) {
			continue // gone, which the next state says
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("attach a BPF program to interface %d: %w", index, err))
			continue
		}
		p.pods[index] = l
	}
	ends := map[uint32]bool{}
	for _, a := range s.Remotes {
		ends[number(a)] = true
	}
	for end := range p.ends {
		less = less || !ends[end]
	}
	if less {
		errs = append(errs, p.sweep(homes, ends))
	}
	p.ends = ends
	return errors.Join(errs...)
}

// sweep ends the flows of pods that are not at home any more, and those to other ends.
func (p *Path) sweep(homes map[[4]byte]uint32, ends map[uint32]bool) error {
	var k key
	var f flow
	var gone []key
	entries := p.kernel.flows.Iterate()
	for entries.Next(&k, &f) {
		home, is := homes[k.Src]
		if !is || f.Interface != 0 && f.Interface != home || !ends[f.Remote] {
			gone = append(gone, k)
		}
	}
	errs := []error{entries.Err()}
	for _, k := range gone {
		if err := p.kernel.flows.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end flows beside netfilter: %w", err)
	}
	return nil
}

// Device that it was opened for.
func (p *Path) Device() Device { return p.device }

// Counts of what went beside netfilter since it was opened, out of pods and into them.
func (p *Path) Counts() (out, in Count, err error) {
	out, err = p.kernel.count(outOfPods)
	in, inErr := p.kernel.count(intoPods)
	return out, in, errors.Join(err, inErr)
}

// Flows that may go beside netfilter at this moment.
func (p *Path) Flows() (int, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return p.kernel.fresh(uint64(now.Nano()))
}

// Close detaches it; packets take the slow path.
func (p *Path) Close() error {
	var errs []error
	for _, l := range p.pods {
		errs = append(errs, l.Close())
	}
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	if p.long != nil {
		errs = append(errs, p.long.Close())
	}
	if p.pod != nil {
		errs = append(errs, p.pod.Close())
	}
	return errors.Join(append(errs, p.kernel.close())...)
}
