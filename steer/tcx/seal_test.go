package tcx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// Whatever a program reads of an element that another key was given meanwhile, it does not use.
func TestWhatIsHalfAnothersIsNotUsed(t *testing.T) {
	p, c := openGateway(t)
	out, home := p.program(t, "sally_from_wire"), p.program(t, "sally_replies")
	in := check(packet(change{}))
	inside, outside := keyOf(c.Protocol, c.Pod, c.Partner), keyOf(c.Protocol, c.VIP, c.Partner)
	verdicts := func() (int32, int32) {
		there, _ := ran(t, out, wrap(in, func([]byte) {}))
		back, _ := ran(t, home, reversed(in))
		return there, back
	}
	p.lend(t, c, same[*outward], same[*homeward])
	var o outward
	var h homeward
	if err := errors.Join(p.pairs.out.Lookup(inside, &o), p.pairs.home.Lookup(outside, &h)); err != nil {
		t.Fatal(err)
	}
	put := func(o outward, h homeward) {
		t.Helper()
		if err := errors.Join(p.pairs.out.Put(inside, o), p.pairs.home.Put(outside, h)); err != nil {
			t.Fatal(err)
		}
	}
	if there, back := verdicts(); there != taken || back != taken {
		t.Fatalf("out %d, home %d before anything changed", there, back)
	}
	for what, change := range map[string]func(*outward, *homeward){
		"the address": func(o *outward, h *homeward) { o.VIP[3]++; h.Pod[3]++ },
		"the port":    func(o *outward, h *homeward) { o.Port[1]++; h.Port[1]++ },
		"the sum":     func(o *outward, h *homeward) { o.Sum++; h.Sum++ },
		"the counter": func(o *outward, h *homeward) { o.Counter++; h.Counter++ },
		"the VIP": func(o *outward, h *homeward) {
			o.Counter, o.Fence, h.Counter, h.Fence = o.Fence, o.Counter, h.Fence, h.Counter
		},
		"the far end":    func(o *outward, h *homeward) { o.Seal++; h.Remote++ },
		"the near end":   func(o *outward, h *homeward) { o.Seal--; h.Local++ },
		"an exchange":    func(o *outward, h *homeward) { o.Port[0]++; o.Port[1]--; h.Port[0]++; h.Port[1]-- },
		"another's seal": func(o *outward, h *homeward) { o.Seal, h.Seal = h.Seal, o.Seal },
	} {
		o, h := o, h
		change(&o, &h)
		put(o, h)
		if there, back := verdicts(); there != goOn || back != goOn {
			t.Errorf("%s: out %d, home %d", what, there, back)
		}
	}
	// All of another connection's.
	b := c
	b.Pod, b.VIP = netip.AddrPortFrom(netip.MustParseAddr("10.9.0.3"), 4711), netip.AddrPortFrom(theVIP, 0x7777)
	p.lend(t, b, same[*outward], same[*homeward])
	if err := errors.Join(p.pairs.out.Lookup(keyOf(17, b.Pod, b.Partner), &o), p.pairs.home.Lookup(keyOf(17, b.VIP, b.Partner), &h)); err != nil {
		t.Fatal(err)
	}
	put(o, h)
	if there, back := verdicts(); there != goOn || back != goOn {
		t.Errorf("another connection: out %d, home %d", there, back)
	}
}

// The kernel does give elements away while they are read.
func TestAnElementThatIsGivenAwayWhileItIsRead(t *testing.T) {
	p, c := openGateway(t)
	prog := p.program(t, "sally_from_wire")
	b := c
	b.Pod, b.VIP = netip.AddrPortFrom(netip.MustParseAddr("10.9.0.3"), 4711), netip.AddrPortFrom(theVIP, 0x7777)
	keys, values := []key{keyOf(17, c.Pod, c.Partner), keyOf(17, b.Pod, b.Partner)}, make([]outward, 2)
	for i, each := range []Pair{c, b} {
		p.lend(t, each, same[*outward], same[*homeward])
		if err := p.pairs.out.Lookup(keys[i], &values[i]); err != nil {
			t.Fatal(err)
		}
	}
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for i := 0; err == nil || errors.Is(err, ebpf.ErrKeyNotExist); i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			_ = p.pairs.out.Delete(keys[i%2])
			err = p.pairs.out.Put(keys[1-i%2], values[1-i%2])
		}
		stopped <- err
	}()
	in := wrap(check(packet(change{})), func([]byte) {})
	var asItself, asAnother int
	for range 50_000 {
		verdict, frame := ran(t, prog, in)
		switch port := [2]byte(frame[34:36]); {
		case verdict == goOn:
		case port == values[0].Port:
			asItself++
		default:
			asAnother++
		}
	}
	close(stop)
	if err := <-stopped; err != nil || asItself == 0 || asAnother > 0 {
		t.Errorf("%v; of 50000 packets %d left as they should, %d with another's port", err, asItself, asAnother)
	}
}

func TestAFlowThatIsHalfAnothersIsNotUsed(t *testing.T) {
	p, pod := open(t)
	if err := p.Apply(state(pod)); err != nil {
		t.Fatal(err)
	}
	wire := programOf(t, p.links, "sally_from_wire")
	reply := packet(change{ip: func(ip []byte) { copy(ip[12:], aFlow.Dst[:]); copy(ip[16:], aFlow.Src[:]) }})
	copy(reply[34:], aFlow.DstPort[:])
	copy(reply[36:], aFlow.SrcPort[:])
	reply = wrap(reply, func(outer []byte) {
		copy(outer[26:], theVIP.AsSlice())
		copy(outer[30:], nodeIP.AsSlice())
	})
	toPodHeader := append(append(slices.Clone(podMAC), hostMAC...), 8, 0)
	for _, c := range []struct {
		what    string
		change  func(*flow)
		out, in bool
	}{
		{"nothing", func(*flow) {}, true, true},
		{"the far end", func(f *flow) { f.Remote++ }, false, true},
		{"the near end", func(f *flow) { f.Local++ }, false, true},
		{"the interface", func(f *flow) { f.Interface++ }, false, false},
		{"the frame's first half", func(f *flow) { f.MACs[0]++ }, true, false},
		{"the frame's second half", func(f *flow) { f.MACs[11]++ }, true, false},
		{"another flow's way", func(f *flow) { f.Way = p.kernel.seal.way(key{Protocol: 6}, *f) }, false, true},
		{"another pod's home", func(f *flow) { f.Home = p.kernel.seal.home(key{Src: [4]byte{10, 9, 0, 3}}, *f) }, true, false},
	} {
		p.put(t, aFlow, pod, func(*flow) {})
		var f flow
		if err := p.kernel.flows.Lookup(aFlow, &f); err != nil {
			t.Fatal(err)
		}
		c.change(&f)
		if err := p.kernel.flows.Put(aFlow, f); err != nil {
			t.Fatal(err)
		}
		if verdict, frame := ran(t, wire, reply); (verdict == taken) != c.in || !c.in && verdict != goOn || c.in && !bytes.Equal(frame[:14], toPodHeader) {
			t.Errorf("%s: verdict %d on the way in, frame % x", c.what, verdict, frame[:14])
		}
		if verdict, _ := p.through(t, packet(change{}), pod); (verdict == taken) != c.out || !c.out && verdict != goOn {
			t.Errorf("%s: verdict %d on the way out", c.what, verdict)
		}
	}
	// What the pod's interface says of a flow that it has not seen yet is sealed.
	p.put(t, aFlow, pod, func(f *flow) { f.Interface, f.MACs = 0, [12]byte{} })
	var f flow
	if verdict, _ := p.through(t, packet(change{}), pod); verdict != goOn || p.kernel.flows.Lookup(aFlow, &f) != nil ||
		f.Interface != uint32(pod) || f.MACs != [12]byte(toPodHeader) || f.Home != p.kernel.seal.home(aFlow, f) {
		t.Errorf("verdict %d, and it wrote %+v", verdict, f)
	}
}

// home is what the seal of a flow's home is to be.
func (s seal) home(k key, f flow) uint64 {
	v := binaryOf(f)
	return s.of(uint64(binary.NativeEndian.Uint32(k.Src[:])), binary.NativeEndian.Uint64(v[flowInterface:]), binary.NativeEndian.Uint64(v[flowInterface+8:]))
}

// way is what the seal of a flow's way is to be, which only programs write.
func (s seal) way(k key, f flow) uint64 {
	a, b := k.words()
	return s.of(a, b, binary.NativeEndian.Uint64(binaryOf(f)[flowRemote:]))
}
