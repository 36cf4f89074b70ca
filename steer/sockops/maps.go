package sockops

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/steer"
)

// Counters of connections that a route takes.
const (
	sooner  = iota // their second SYN comes sooner
	refused        // the kernel does not let a program do it
	counterCount
)

const (
	// keyBits of the longest prefix: the class, then an address.
	keyBits = 32 + 128
	// portRanges is how many ranges of ports a destination has room for.
	portRanges = 8
	mostPods   = 1 << 16
	mostKeys   = 1 << 20
)

// key of the destinations, a longest-prefix match: struct bpf_lpm_trie_key.
type key struct {
	Bits  uint32
	Class uint32
	Addr  [16]byte
}

// value has ranges of ports; those not used are empty, their first after their last.
type value [portRanges]portRange

type portRange struct{ First, Last uint16 }

// kernel is what the program looks things up in. Nothing of it has a name in the file
// system: it is gone with the last descriptor.
type kernel struct{ classes, destinations, counters *ebpf.Map }

func newKernel() (kernel, error) {
	var k kernel
	var errs [3]error
	k.classes, errs[0] = ebpf.NewMap(&ebpf.MapSpec{
		Name: "sally_pods", Type: ebpf.Hash, KeySize: 16, ValueSize: 4, MaxEntries: mostPods, Flags: unix.BPF_F_NO_PREALLOC,
	})
	k.destinations, errs[1] = ebpf.NewMap(&ebpf.MapSpec{
		Name: "sally_dests", Type: ebpf.LPMTrie, KeySize: 24, ValueSize: 4 * portRanges, MaxEntries: mostKeys, Flags: unix.BPF_F_NO_PREALLOC,
	})
	k.counters, errs[2] = ebpf.NewMap(&ebpf.MapSpec{
		Name: "sally_syns", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: counterCount,
	})
	if err := errors.Join(errs[:]...); err != nil {
		return k, errors.Join(fmt.Errorf("make BPF maps: %w", err), k.close())
	}
	return k, nil
}

func (k kernel) close() error {
	var errs []error
	for _, m := range []*ebpf.Map{k.classes, k.destinations, k.counters} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// apply makes the maps equal to what is wanted. In between, a connection may wait its
// ordinary time, or one that has just lost its route the shorter one.
func (k kernel) apply(want steer.Retries) error {
	classes := map[[16]byte]uint32{}
	for addr, class := range want.Classes {
		classes[addr.As16()] = uint32(class)
	}
	destinations := map[key]value{}
	for d, ports := range want.Destinations {
		destinations[keyOf(d)] = valueOf(ports)
	}
	return errors.Join(
		equal(k.destinations, destinations, "destinations of routes"),
		equal(k.classes, classes, "addresses of selected pods"),
	)
}

func keyOf(d steer.Destination) key {
	bits := d.Prefix.Bits()
	if d.Prefix.Addr().Is4() {
		bits += 96 // mapped
	}
	return key{Bits: uint32(32 + bits), Class: uint32(d.Class), Addr: d.Prefix.Addr().As16()}
}

// valueOf takes what there is no room for together with what lies between.
func valueOf(ports []nf.Ports) value {
	var v value
	for i := range v {
		v[i] = portRange{First: 1, Last: 0}
	}
	for i, p := range ports {
		if i < portRanges {
			v[i] = portRange{First: p.First, Last: p.Last}
		} else {
			v[portRanges-1].Last = p.Last
		}
	}
	return v
}

// equal adds before it deletes.
func equal[K, V comparable](m *ebpf.Map, want map[K]V, what string) error {
	have := map[K]V{}
	var k K
	var v V
	entries := m.Iterate()
	for entries.Next(&k, &v) {
		have[k] = v
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("list the %s in their BPF map: %w", what, err)
	}
	for k, v := range want {
		if had, is := have[k]; is && had == v {
			continue
		}
		if err := m.Put(k, v); err != nil {
			return fmt.Errorf("put one of %d %s into their BPF map, which has room for %d: %w", len(want), what, m.MaxEntries(), err)
		}
	}
	for k := range have {
		if _, is := want[k]; is {
			continue
		}
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete one of the %s from their BPF map: %w", what, err)
		}
	}
	return nil
}

func (k kernel) counts() (Counts, error) {
	var c Counts
	for index, into := range map[uint32]*uint64{sooner: &c.Sooner, refused: &c.Refused} {
		if err := k.counters.Lookup(index, into); err != nil {
			return c, fmt.Errorf("read a counter of connections: %w", err)
		}
	}
	return c, nil
}
