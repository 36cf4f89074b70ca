package flows

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
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

// packer is what packing needs besides the result. Its writer is large, above a
// megabyte, and made only for what is packed.
type packer struct {
	plain  []byte
	packed bytes.Buffer
	w      *flate.Writer
}

// packers are those at rest. A sync.Pool is emptied by every second collection of
// garbage, and a new writer is what brings the next one about.
var packers = make(chan *packer, 2)

func takePacker() *packer {
	select {
	case p := <-packers:
		return p
	default:
		return new(packer)
	}
}

func (p *packer) rest() {
	select {
	case packers <- p:
	default:
	}
}

// reset begins a packed message with head.
func (p *packer) reset(head []byte) {
	p.packed.Reset()
	p.packed.Write(head)
	if p.w != nil {
		p.w.Reset(&p.packed)
		return
	}
	w, err := flate.NewWriter(&p.packed, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	p.w = w
}

// Encode gives the bytes of a message. Equal messages have equal bytes.
func Encode(m Message) []byte {
	p := takePacker()
	defer p.rest()
	p.plain = m.appendTo(p.plain[:0])
	if len(p.plain)-headLen < worthPacking || m.Kind == Hello {
		return bytes.Clone(p.plain)
	}
	p.reset(p.plain[:headLen])
	_, _ = p.w.Write(p.plain[headLen:]) // into memory
	_ = p.w.Close()
	if p.packed.Len() >= len(p.plain) {
		return bytes.Clone(p.plain)
	}
	p.packed.Bytes()[2] = deflate
	return bytes.Clone(p.packed.Bytes())
}

func (m *Message) appendTo(out []byte) []byte {
	out = append(out, Version, byte(m.Kind), plain)
	out = binary.BigEndian.AppendUint64(out, m.Term)
	out = binary.BigEndian.AppendUint64(out, m.Seq)
	if m.Kind == Hello {
		for _, s := range []string{m.Name, m.VIP} {
			s = s[:min(len(s), maxName)]
			out = append(append(out, byte(len(s))), s...)
		}
		out = binary.BigEndian.AppendUint64(out, m.Have.Term)
		return binary.BigEndian.AppendUint64(out, m.Have.Seq)
	}
	for i := range m.Changes {
		out = appendChange(out, &m.Changes[i])
	}
	return out
}

// Decoder decodes one message after another into the same memory.
type Decoder struct {
	changes []Change
	packed  bytes.Reader
	inflate io.ReadCloser
	body    bytes.Buffer
}

// Decode refuses what no Encode gives.
func Decode(b []byte) (Message, error) { return new(Decoder).Decode(b) }

// Decode is as the function Decode; what the message has of changes is valid until the
// next one.
func (d *Decoder) Decode(b []byte) (Message, error) {
	switch {
	case len(b) < headLen:
		return Message{}, errShort
	case len(b) > MaxFrame:
		return Message{}, errLong
	case b[0] != Version:
		return Message{}, errVersion
	}
	m := Message{Kind: Kind(b[1]), Term: binary.BigEndian.Uint64(b[3:]), Seq: binary.BigEndian.Uint64(b[11:])}
	if m.Kind < Hello || m.Kind > Ask {
		return Message{}, errKind
	}
	body, err := d.unpack(b[2], b[headLen:])
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
		if len(body) < 16 {
			return Message{}, errShort
		}
		m.Have = Position{Term: binary.BigEndian.Uint64(body), Seq: binary.BigEndian.Uint64(body[8:])}
		body = body[16:]
	case Snapshot, Changes:
		d.changes = d.changes[:0]
		for len(body) > 0 && len(d.changes) < MaxChanges {
			var c Change
			if c, body, err = cutChange(body); err != nil {
				return Message{}, err
			}
			d.changes = append(d.changes, c)
		}
		m.Changes = d.changes
	}
	if len(body) > 0 {
		return Message{}, errLong
	}
	return m, nil
}

func (d *Decoder) unpack(packing byte, body []byte) ([]byte, error) {
	switch packing {
	case plain:
		return body, nil
	case deflate:
		d.packed.Reset(body)
		if d.inflate == nil {
			d.inflate = flate.NewReader(&d.packed)
		} else if err := d.inflate.(flate.Resetter).Reset(&d.packed, nil); err != nil {
			return nil, fmt.Errorf("unpack message: %w", err)
		}
		d.body.Reset()
		// What is longer is cut, and is then a message of too many flows.
		if _, err := d.body.ReadFrom(io.LimitReader(d.inflate, maxBody+1)); err != nil {
			return nil, fmt.Errorf("unpack message: %w", err)
		}
		return d.body.Bytes(), nil
	}
	return nil, errKind
}

// appendChange writes op and family in one byte, then protocol, addresses, ports,
// and, of what has not ended, translation and state.
func appendChange(out []byte, c *Change) []byte {
	f := &c.Flow
	kind := byte(c.Op)
	if f.Src.Is6() {
		kind |= 0x80
	}
	out = append(out, kind, f.Protocol)
	out = appendAddr(appendAddr(out, f.Src), f.Dst)
	out = binary.BigEndian.AppendUint16(out, f.SrcPort)
	out = binary.BigEndian.AppendUint16(out, f.DstPort)
	if c.Op == Delete {
		return out
	}
	out = binary.BigEndian.AppendUint16(out, f.Port)
	out = append(out, f.State, f.Status)
	return binary.BigEndian.AppendUint32(out, f.Mark)
}

func appendAddr(out []byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return append(out, b[:]...)
	}
	b := a.As16()
	return append(out, b[:]...)
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
