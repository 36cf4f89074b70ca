package tcx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
)

// outward is a connection by its ends as the pod's packets have them, and what its packets
// become. Addresses and ports are in network order but where it says so.
type outward struct {
	Until        uint64  // in the time of bpf_ktime_get_boot_ns
	Node, Inside [4]byte // the tunnel's ends
	VIP          [4]byte
	Port         [2]byte
	Sum          uint16 // what the change of address adds to the header's
	Fence        uint32 // number of the VIP
	Counter      uint32
	Interface    uint32 // by which the slow path sends
	Open         uint32
	Seal         uint64 // of the key and of the ends, the translation and the numbers
}

// homeward is a connection by its ends as the VIP's packets have them, and what replies become.
type homeward struct {
	Until         uint64
	Remote, Local uint32 // the tunnel's ends, in the host's order
	Pod           [4]byte
	Port          [2]byte
	Sum           uint16
	Fence         uint32
	Counter       uint32
	Slow          uint32 // packets that netfilter saw
	Open          uint32 // 0: only counted yet
	Seal          uint64
}

// Where the fields of both are.
const (
	pairUntil    = 0
	outNode      = 8
	outInside    = 12
	pairAddr     = 16
	pairPort     = 20
	pairSum      = 22
	pairFence    = 24
	pairCounter  = 28
	outInterface = 32
	homeSlow     = 32
	pairOpen     = 36
	pairSeal     = 40
	pairSize     = 48
	mostVIPs     = 64
	mostCounters = 8192 // two for a route
	remembered   = 8 * time.Second
)

// pairs is what a gateway's programs share.
type pairs struct {
	out, home, fence, long, counts *ebpf.Map

	seal seal
}

func newPairs() (pairs, error) {
	k := pairs{seal: newSeal()}
	var errs []error
	for _, m := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&k.out, ebpf.MapSpec{Name: "sally_out", Type: ebpf.LRUHash, KeySize: 16, ValueSize: pairSize, MaxEntries: mostFlows}},
		{&k.home, ebpf.MapSpec{Name: "sally_home", Type: ebpf.LRUHash, KeySize: 16, ValueSize: pairSize, MaxEntries: mostFlows}},
		{&k.fence, ebpf.MapSpec{Name: "sally_fence", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: mostVIPs}},
		{&k.long, ebpf.MapSpec{Name: "sally_long", Type: ebpf.RingBuf, MaxEntries: eventRoom}},
		{&k.counts, ebpf.MapSpec{Name: "sally_routes", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 16, MaxEntries: mostCounters}},
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

func (k pairs) close() error {
	var errs []error
	for _, m := range []*ebpf.Map{k.out, k.home, k.fence, k.long, k.counts} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// count sums a counter of both directions.
func (k pairs) count(number uint32) (out, in Count, err error) {
	for i, to := range []*Count{&out, &in} {
		var each []Count
		if err := k.counts.Lookup(number+uint32(i), &each); err != nil {
			return out, in, fmt.Errorf("read how much went beside netfilter: %w", err)
		}
		for _, c := range each {
			to.Packets, to.Bytes = to.Packets+c.Packets, to.Bytes+c.Bytes
		}
	}
	return out, in, nil
}

// each calls with every connection that may go beside netfilter.
func (k pairs) each(do func(outside key, h homeward)) error {
	var at ebpf.MapBatchCursor
	keys, values := make([]key, 4096), make([]homeward, 4096)
	var err error
	for err == nil {
		var read int
		read, err = k.home.BatchLookup(&at, keys, values, nil)
		for i := range read {
			if values[i].Open != 0 {
				do(keys[i], values[i])
			}
		}
	}
	if !errors.Is(err, ebpf.ErrKeyNotExist) { // which is the end
		return fmt.Errorf("list what goes beside netfilter: %w", err)
	}
	return nil
}

// sealed is what a half's seal is to be.
func (s seal) sealed(k key, half any) uint64 {
	a, b := k.words()
	v := binaryOf(half)
	return s.of(a, b, binary.NativeEndian.Uint64(v[outNode:]), binary.NativeEndian.Uint64(v[pairAddr:]), binary.NativeEndian.Uint64(v[pairFence:]))
}

// inside is the connection's key with the pod's end instead of the VIP's.
func (h homeward) inside(outside key) key {
	outside.Src, outside.SrcPort = h.Pod, h.Port
	return outside
}

// forget a connection, whichever half of it is left.
func (k pairs) forget(inside, outside key) error {
	var errs []error
	for _, err := range []error{k.out.Delete(inside), k.home.Delete(outside)} {
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("end a connection beside netfilter: %w", err))
		}
	}
	return errors.Join(errs...)
}

func keyOf(protocol uint8, src, dst netip.AddrPort) key {
	k := key{Src: src.Addr().As4(), Dst: dst.Addr().As4(), Protocol: uint32(protocol)}
	binary.BigEndian.PutUint16(k.SrcPort[:], src.Port())
	binary.BigEndian.PutUint16(k.DstPort[:], dst.Port())
	return k
}

// exchange is what a header's sum, before it is inverted, gains when one address takes another's
// place (RFC 1624).
func exchange(from, to [4]byte) uint16 {
	var sum uint32
	for i := 0; i < 4; i += 2 {
		sum += uint32(^binary.NativeEndian.Uint16(from[i:])) + uint32(binary.NativeEndian.Uint16(to[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
