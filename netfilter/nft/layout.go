package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// kind is what the elements of a set are: the set's declaration, how its raw keys
// and data are read, and how they are written for nft.
type kind int

const (
	addresses     kind = iota // an address
	sourceClass               // an address : the class of its targets
	portVerdict               // class, address, protocol, port : the chain to go to
	portMark                  // class, address, protocol, port : the connection's mark
	hostVerdict               // class, address : the chain to go to
	hostMark                  // class, address : the connection's mark
	counterOfMark             // a connection's mark : the counter
)

// Classes live in the packet's priority, which nft reads and writes as a tc handle:
// major:minor, hexadecimal.
func (k kind) declaration(f family) string {
	addr := map[family]string{ipv4: "ipv4_addr", ipv6: "ipv6_addr"}[f]
	return map[kind]string{
		addresses:     addr,
		sourceClass:   addr + " : classid",
		portVerdict:   "classid . " + addr + " . inet_proto . inet_service : verdict",
		portMark:      "classid . " + addr + " . inet_proto . inet_service : mark",
		hostVerdict:   "classid . " + addr + " : verdict",
		hostMark:      "classid . " + addr + " : mark",
		counterOfMark: "mark : counter",
	}[k]
}

func (k kind) isMap() bool { return k != addresses }

func (k kind) isInterval() bool { return k >= portVerdict && k <= hostMark }

// concatenated is NFT_SET_CONCAT; kernels before 5.6 do not report it.
const concatenated = 0x80

func (k kind) shape(f family) setShape {
	addr := uint32(4)
	if f == ipv6 {
		addr = 16
	}
	s := map[kind]setShape{
		addresses:     {keyLen: addr},
		sourceClass:   {keyLen: addr, flags: unix.NFT_SET_MAP},
		portVerdict:   {keyLen: addr + 12, flags: unix.NFT_SET_MAP | unix.NFT_SET_INTERVAL},
		portMark:      {keyLen: addr + 12, flags: unix.NFT_SET_MAP | unix.NFT_SET_INTERVAL},
		hostVerdict:   {keyLen: addr + 4, flags: unix.NFT_SET_MAP | unix.NFT_SET_INTERVAL},
		hostMark:      {keyLen: addr + 4, flags: unix.NFT_SET_MAP | unix.NFT_SET_INTERVAL},
		counterOfMark: {keyLen: 4, flags: unix.NFT_SET_OBJECT, object: unix.NFT_OBJECT_COUNTER},
	}[k]
	if k == portVerdict || k == hostVerdict {
		s.dataType = unix.NFT_DATA_VERDICT
	}
	return s
}

// same compares a set of the kernel with the shape wanted of it.
func (s setShape) same(want setShape) bool {
	verdict := s.dataType == unix.NFT_DATA_VERDICT
	return s.flags&^concatenated == want.flags && s.keyLen == want.keyLen && s.object == want.object &&
		verdict == (want.dataType == unix.NFT_DATA_VERDICT)
}

// Raw keys: fields of a concatenation are padded to four bytes and in network
// order; a value on its own is as the packet's register has it.
func rawClass(class uint32) string { return string(binary.BigEndian.AppendUint32(nil, class)) }

func rawHost(v uint32) string { return string(binary.NativeEndian.AppendUint32(nil, v)) }

func hostValue(raw string) uint32 {
	if len(raw) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32([]byte(raw))
}

func rawPorts(addr netip.Addr, protocol uint8, port uint16) string {
	raw := make([]byte, 0, 24)
	if addr.Is4() {
		a := addr.As4()
		raw = append(raw, a[:]...)
	} else {
		a := addr.As16()
		raw = append(raw, a[:]...)
	}
	return string(append(raw, protocol, 0, 0, 0, byte(port>>8), byte(port), 0, 0))
}

// text writes a key for nft.
func (k kind) text(f family, e key) string {
	size := 4
	if f == ipv6 {
		size = 16
	}
	addr := func(raw string) string {
		a, _ := netip.AddrFromSlice([]byte(raw))
		return a.String()
	}
	span := func(first, last string) string {
		if first == last {
			return first
		}
		return first + "-" + last
	}
	switch k {
	case addresses, sourceClass:
		return addr(e.first)
	case counterOfMark:
		return fmt.Sprintf("%#x", hostValue(e.first))
	}
	fields := []string{
		classText(binary.BigEndian.Uint32([]byte(e.first))),
		// Always as a range: nft 1.0.6 does not find an element to delete when no field is one.
		addr(e.first[4:4+size]) + "-" + addr(e.last[4:4+size]),
	}
	if k == portVerdict || k == portMark {
		first, last := e.first[4+size:], e.last[4+size:]
		port := func(raw string) string { return fmt.Sprint(binary.BigEndian.Uint16([]byte(raw[4:]))) }
		fields = append(fields, span(fmt.Sprint(first[0]), fmt.Sprint(last[0])), span(port(first), port(last)))
	}
	return strings.Join(fields, " . ")
}

// data writes a map's datum for nft.
func (k kind) data(raw string) string {
	switch k {
	case sourceClass:
		return classText(hostValue(raw))
	case portVerdict, hostVerdict:
		return "goto " + raw
	case portMark, hostMark:
		return fmt.Sprintf("%#x", hostValue(raw))
	case counterOfMark:
		return `"` + raw + `"`
	}
	return ""
}

func classText(class uint32) string { return fmt.Sprintf("%x:%x", class>>16, class&0xffff) }
