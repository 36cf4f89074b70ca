package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// What stands around a payload, inside memberlist's encryption:
//
//	version 1 byte · kind 1 byte · age 4 bytes (ms) · address length 1 byte, address,
//	port 2 bytes · name length 1 byte, name · payload
//
// memberlist tells a receiver neither name nor address of a sender.
const (
	frameVersion = 1
	maxName      = 253 // a DNS name, as node names are
)

// label separates this protocol from others at the same port; it is sent in the
// clear and authenticated.
const label = "sallyport/1"

type kind uint8

const (
	data     kind = iota
	presence      // no payload: who is here by this name?
	leaving       // the sender ends gracefully
)

type frame struct {
	kind    kind
	age     time.Duration // since the sender's start; the elder of two namesakes keeps the name
	addr    netip.AddrPort
	name    string
	payload []byte
}

// errVersion is a frame of another version of this package.
var errVersion = errors.New("frame of another version")

func frameOverhead(name string, addr netip.AddrPort) int {
	return 1 + 1 + 4 + 1 + addr.Addr().BitLen()/8 + 2 + 1 + len(name)
}

func (f frame) append(b []byte) []byte {
	b = append(b, frameVersion, byte(f.kind))
	b = binary.BigEndian.AppendUint32(b, uint32(min(f.age.Milliseconds(), math.MaxUint32)))
	addr := f.addr.Addr().AsSlice()
	b = append(b, byte(len(addr)))
	b = append(b, addr...)
	b = binary.BigEndian.AppendUint16(b, f.addr.Port())
	b = append(b, byte(len(f.name)))
	b = append(b, f.name...)
	return append(b, f.payload...)
}

// parseFrame reads a frame; its payload is part of b.
func parseFrame(b []byte) (frame, error) {
	if len(b) < 7 {
		return frame{}, fmt.Errorf("frame of %d bytes", len(b))
	}
	if b[0] != frameVersion {
		return frame{}, fmt.Errorf("%w: %d", errVersion, b[0])
	}
	f := frame{kind: kind(b[1]), age: time.Duration(binary.BigEndian.Uint32(b[2:])) * time.Millisecond}
	if f.kind > leaving {
		return frame{}, fmt.Errorf("frame of unknown kind %d", f.kind)
	}
	n := int(b[6])
	b = b[7:]
	if len(b) < n+3 {
		return frame{}, errors.New("frame ends in its address")
	}
	addr, ok := netip.AddrFromSlice(b[:n])
	port := binary.BigEndian.Uint16(b[n:])
	if !ok || addr.Is4In6() || addr.IsUnspecified() || addr.IsMulticast() || port == 0 {
		return frame{}, errors.New("frame without a usable address")
	}
	f.addr = netip.AddrPortFrom(addr, port)
	b = b[n+2:]
	n = int(b[0])
	b = b[1:]
	if len(b) < n {
		return frame{}, errors.New("frame ends in its name")
	}
	f.name, f.payload = string(b[:n]), b[n:]
	if err := validName(f.name); err != nil {
		return frame{}, err
	}
	return f, nil
}
