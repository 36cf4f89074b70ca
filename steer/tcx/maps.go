package tcx

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// key of a flow, with its ends as the pod's packets have them, in network order.
type key struct {
	Src, Dst         [4]byte
	SrcPort, DstPort [2]byte
	Protocol         uint32
}

// flow is what the programs know of one. The tunnel's way out writes where the slow path
// sends it and until when that is believed, the pod's interface where it comes from.
type flow struct {
	Until     uint64 // in the time of bpf_ktime_get_coarse_ns
	Remote    uint32 // the tunnel's far end, in the host's order
	Local     uint32 // its near end
	Way       uint64 // seal of the key and both
	Slow      uint32 // packets of the pod that netfilter saw before the flow was open
	Open      uint8  // tracking on this node bears not to see every packet
	Replied   uint8  // and has seen both directions
	_         [2]byte
	Interface uint32   // where the pod's packets come in; 0 before one did
	MACs      [12]byte // of a frame to the pod
	Home      uint64   // seal of the pod's address and both
}

// Where the fields of a flow are.
const (
	flowUntil     = 0
	flowRemote    = 8
	flowLocal     = 12
	flowWay       = 16
	flowSlow      = 24
	flowOpen      = 28
	flowReplied   = 29
	flowInterface = 32
	flowMACs      = 36
	flowHome      = 48
	flowSize      = 56
)

// Directions that are counted.
const (
	outOfPods = iota
	intoPods
	directions
)

// Count of packets, those that a larger one is made of, and of their bytes from the IP
// header on.
type Count struct{ Packets, Bytes uint64 }

const (
	mostFlows = 1 << 16 // the least recently used give way, and are learned anew
	mostHosts = 1 << 14
	// eventRoom in bytes is for some hundred flows at a time; one that finds none asks again.
	eventRoom = 1 << 14
)

// kernel is what the programs share. Nothing of it has a name in the file system: it is
// gone with the last descriptor.
type kernel struct {
	flows, homes, peers, long, counts *ebpf.Map

	seal seal
}

func newKernel() (kernel, error) {
	k := kernel{seal: newSeal()}
	var errs []error
	for _, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&k.flows, ebpf.MapSpec{Name: "sally_flows", Type: ebpf.LRUHash, KeySize: 16, ValueSize: flowSize, MaxEntries: mostFlows}},
		{&k.homes, ebpf.MapSpec{Name: "sally_homes", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: mostHosts, Flags: unix.BPF_F_NO_PREALLOC}},
		{&k.peers, ebpf.MapSpec{Name: "sally_peers", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: mostHosts, Flags: unix.BPF_F_NO_PREALLOC}},
		{&k.long, ebpf.MapSpec{Name: "sally_long", Type: ebpf.RingBuf, MaxEntries: eventRoom}},
		{&k.counts, ebpf.MapSpec{Name: "sally_fast", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 16, MaxEntries: directions}},
	} {
		var err error
		*m.to, err = ebpf.NewMap(&m.spec)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return k, errors.Join(fmt.Errorf("make BPF maps: %w", err), k.close())
	}
	return k, nil
}

func (k kernel) close() error {
	var errs []error
	for _, m := range []*ebpf.Map{k.flows, k.homes, k.peers, k.long, k.counts} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// equal makes a map have what is wanted and nothing else, and tells whether anything was
// taken away or changed.
func equal(m *ebpf.Map, want map[[4]byte]uint32, what string) (less bool, _ error) {
	have := map[[4]byte]uint32{}
	var k [4]byte
	var v uint32
	entries := m.Iterate()
	for entries.Next(&k, &v) {
		have[k] = v
	}
	if err := entries.Err(); err != nil {
		return true, fmt.Errorf("list %s in their BPF map: %w", what, err)
	}
	for k, v := range have {
		if now, is := want[k]; !is {
			less = true
			if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return true, fmt.Errorf("delete one of %s from their BPF map: %w", what, err)
			}
		} else if now != v {
			less = true
		}
	}
	for k, v := range want {
		if had, is := have[k]; is && had == v {
			continue
		}
		if err := m.Put(k, v); err != nil {
			return less, fmt.Errorf("put one of %d %s into their BPF map, which has room for %d: %w", len(want), what, m.MaxEntries(), err)
		}
	}
	return less, nil
}

// fresh are the flows that may go beside netfilter at a moment of the kernel's clock: with
// a lease, and seen at their pod's interface.
func (k kernel) fresh(now uint64) (n int, err error) {
	var at ebpf.MapBatchCursor
	keys, flows := make([]key, 4096), make([]flow, 4096)
	for err == nil {
		var read int
		read, err = k.flows.BatchLookup(&at, keys, flows, nil)
		for _, f := range flows[:read] {
			if f.Open != 0 && f.Interface != 0 && f.Until > now {
				n++
			}
		}
	}
	if !errors.Is(err, ebpf.ErrKeyNotExist) { // which is the end
		return 0, fmt.Errorf("count what goes beside netfilter: %w", err)
	}
	return n, nil
}

func (k kernel) count(direction uint32) (sum Count, err error) {
	var each []Count
	if err := k.counts.Lookup(direction, &each); err != nil {
		return sum, fmt.Errorf("read how much went beside netfilter: %w", err)
	}
	for _, c := range each {
		sum.Packets, sum.Bytes = sum.Packets+c.Packets, sum.Bytes+c.Bytes
	}
	return sum, nil
}
