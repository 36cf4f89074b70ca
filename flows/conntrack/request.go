package conntrack

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// request builds netlink messages, one behind the other in one buffer that is used again:
// at ten thousand new connections a second, whatever is allocated for each has its price
// in the collector's work.
type request struct {
	b     []byte
	begun int // where the last message begins
}

// begin a message behind those that there are, with the header that all of nfnetlink's have.
func (r *request) begin(kind, flags uint16, seq uint32, family Family) {
	r.begun = len(r.b)
	r.b = append(r.b, 0, 0, 0, 0) // its length, as end finds it
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = binary.NativeEndian.AppendUint16(r.b, flags|unix.NLM_F_REQUEST)
	r.b = binary.NativeEndian.AppendUint32(r.b, seq)
	r.b = append(r.b, 0, 0, 0, 0)
	r.b = append(r.b, byte(family), unix.NFNETLINK_V0, 0, 0)
}

func (r *request) end() {
	binary.NativeEndian.PutUint32(r.b[r.begun:], uint32(len(r.b)-r.begun))
}

// acknowledged asks for an answer to the last message.
func (r *request) acknowledged() {
	flags := r.b[r.begun+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
}

// nest opens an attribute that is made of the attributes up to close.
func (r *request) nest(kind uint16) (at int) {
	at = len(r.b)
	r.head(kind|unix.NLA_F_NESTED, 0)
	return at
}

func (r *request) close(at int) { binary.NativeEndian.PutUint16(r.b[at:], uint16(len(r.b)-at)) }

func (r *request) head(kind uint16, size int) {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(attrHeader+size))
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
}

func (r *request) put8(kind uint16, values ...byte) {
	r.head(kind, len(values))
	r.b = append(r.b, values...)
	for len(r.b)%4 != 0 { // netlink pads, and messages and attributes begin at fours
		r.b = append(r.b, 0)
	}
}

func (r *request) put16(kind, value uint16) {
	r.head(kind, 2)
	r.b = append(binary.BigEndian.AppendUint16(r.b, value), 0, 0)
}

func (r *request) put32(kind uint16, value uint32) {
	r.head(kind, 4)
	r.b = binary.BigEndian.AppendUint32(r.b, value)
}
