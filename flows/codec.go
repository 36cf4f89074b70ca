package flows

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sync"
)

// A message is version, kind, packing, term, seq and a body: the names of a Hello, or
// changes. The body is packed where that makes it shorter.
const (
	headLen = 3 + 8 + 8
	plain   = 0
	deflate = 1
	// worthPacking is a body of several flows: one alone only gets longer.
	worthPacking = 128
	// maxBody is what MaxChanges flows of IPv6 take.
	maxBody = MaxChanges * (2 + 2*16 + 4 + 8)
)

var packers = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// Encode gives the bytes of a message. Equal messages have equal bytes.
func Encode(m Message) []byte {
	out := make([]byte, 0, headLen+32*len(m.Changes)+len(m.Name)+len(m.VIP)+2)
	out = append(out, Version, byte(m.Kind), plain)
	out = binary.BigEndian.AppendUint64(out, m.Term)
	out = binary.BigEndian.AppendUint64(out, m.Seq)
	if m.Kind == Hello {
		for _, s := range []string{m.Name, m.VIP} {
			s = s[:min(len(s), maxName)]
			out = append(append(out, byte(len(s))), s...)
		}
		return out
	}
	for _, c := range m.Changes {
		out = appendChange(out, c)
	}
	if len(out)-headLen < worthPacking {
		return out
	}
	var packed bytes.Buffer
	packed.Write(out[:headLen])
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(&packed)
	_, _ = w.Write(out[headLen:]) // into memory
	_ = w.Close()
	if packed.Len() >= len(out) {
		return out
	}
	packed.Bytes()[2] = deflate
	return packed.Bytes()
}

// Decode refuses what no Encode gives.
func Decode(b []byte) (Message, error) {
	switch {
	case len(b) < headLen:
		return Message{}, errShort
	case len(b) > MaxFrame:
		return Message{}, errLong
	case b[0] != Version:
		return Message{}, errVersion
	}
	m := Message{Kind: Kind(b[1]), Term: binary.BigEndian.Uint64(b[3:]), Seq: binary.BigEndian.Uint64(b[11:])}
	if m.Kind < Hello || m.Kind > Merge {
		return Message{}, errKind
	}
	body, err := unpack(b[2], b[headLen:])
	if err != nil {
		return Message{}, err
	}
	switch m.Kind {
	case Hello:
		for _, s := range []*string{&m.Name, &m.VIP} {
			if len(body) == 0 || len(body) < 1+int(body[0]) {
				return Message{}, errShort
			}
			*s, body = string(body[1:1+int(body[0])]), body[1+int(body[0]):]
		}
	case Snapshot, Changes:
		for len(body) > 0 && len(m.Changes) < MaxChanges {
			var c Change
			if c, body, err = cutChange(body); err != nil {
				return Message{}, err
			}
			m.Changes = append(m.Changes, c)
		}
	}
	if len(body) > 0 {
		return Message{}, errLong
	}
	return m, nil
}

func unpack(packing byte, body []byte) ([]byte, error) {
	switch packing {
	case plain:
		return body, nil
	case deflate:
		// What is longer is cut, and is then a message of too many flows.
		full, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(body)), maxBody+1))
		if err != nil {
			return nil, fmt.Errorf("unpack message: %w", err)
		}
		return full, nil
	}
	return nil, errKind
}

// appendChange writes op and family in one byte, then protocol, addresses, ports,
// and, of what has not ended, translation and state.
func appendChange(out []byte, c Change) []byte {
	f := c.Flow
	kind := byte(c.Op)
	if f.Src.Is6() {
		kind |= 0x80
	}
	out = append(out, kind, f.Protocol)
	out = append(append(out, f.Src.AsSlice()...), f.Dst.AsSlice()...)
	out = binary.BigEndian.AppendUint16(out, f.SrcPort)
	out = binary.BigEndian.AppendUint16(out, f.DstPort)
	if c.Op == Delete {
		return out
	}
	out = binary.BigEndian.AppendUint16(out, f.Port)
	out = append(out, f.State, f.Status)
	return binary.BigEndian.AppendUint32(out, f.Mark)
}

func cutChange(b []byte) (Change, []byte, error) {
	op, addr := Op(b[0]&0x7f), 4
	if b[0]&0x80 != 0 {
		addr = 16
	}
	size := 2 + 2*addr + 4
	if op != Delete {
		size += 8
	}
	if op < Put || op > Replace {
		return Change{}, nil, errFlow
	}
	if len(b) < size {
		return Change{}, nil, errShort
	}
	c := Change{Op: op}
	c.Flow.Protocol = b[1]
	c.Flow.Src, _ = netip.AddrFromSlice(b[2 : 2+addr])
	c.Flow.Dst, _ = netip.AddrFromSlice(b[2+addr : 2+2*addr])
	ports := b[2+2*addr:]
	c.Flow.SrcPort, c.Flow.DstPort = binary.BigEndian.Uint16(ports), binary.BigEndian.Uint16(ports[2:])
	if op != Delete {
		c.Flow.Port, c.Flow.State, c.Flow.Status = binary.BigEndian.Uint16(ports[4:]), ports[6], ports[7]
		c.Flow.Mark = binary.BigEndian.Uint32(ports[8:])
	}
	return c, b[size:], nil
}
