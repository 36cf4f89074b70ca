package tcx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Flow is one connection of TCP, with its ends as its pod's packets have them.
type Flow struct{ Src, Dst netip.AddrPort }

// Long waits until the slow path has seen some packets of a connection of TCP; os.ErrClosed
// after Close. One that is not let go is told of again.
func (p *Path) Long() (Flow, error) {
	var k key
	r, err := p.long.Read()
	if errors.Is(err, ringbuf.ErrClosed) {
		return Flow{}, os.ErrClosed
	}
	if err == nil {
		_, err = binary.Decode(r.RawSample, binary.NativeEndian, &k)
	}
	if err != nil {
		return Flow{}, fmt.Errorf("hear of long connections: %w", err)
	}
	return k.flow(), nil
}

func (k key) flow() Flow {
	end := func(addr [4]byte, port [2]byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4(addr), binary.BigEndian.Uint16(port[:]))
	}
	return Flow{Src: end(k.Src, k.SrcPort), Dst: end(k.Dst, k.DstPort)}
}

// Let a connection go beside netfilter, now that tracking bears it. One that the programs
// know no more stays unknown.
func (p *Path) Let(f Flow) error {
	k := keyOf(tcpProtocol, f.Src, f.Dst)
	var v flow
	err := p.kernel.flows.Lookup(k, &v)
	if err == nil && v.Open == 0 {
		v.Open = 1
		err = p.kernel.flows.Update(k, v, ebpf.UpdateExist)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("let %v to %v go beside netfilter: %w", f.Src, f.Dst, err)
	}
	return nil
}

const tcpProtocol = 6
