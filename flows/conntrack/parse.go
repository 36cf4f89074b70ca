package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	nfgenmsgLen = 4
	attrHeader  = 4

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum        = 1
	ctaProtoSrcPort    = 2
	ctaProtoDstPort    = 3
	ctaProtoICMPID     = 4
	ctaProtoICMPType   = 5
	ctaProtoICMPCode   = 6
	ctaProtoICMPv6ID   = 7
	ctaProtoICMPv6Type = 8
	ctaProtoICMPv6Code = 9

	ctaCountersPackets = 1
	ctaCountersBytes   = 2

	ctaProtoInfoTCP  = 1
	ctaTCPState      = 1
	ctaTCPFlagsOrig  = 4
	ctaTCPFlagsReply = 5
)

var errShort = errors.New("connection-tracking message is cut short")

// parse reads one message behind its netlink header.
func parse(m []byte) (Entry, error) {
	if len(m) < nfgenmsgLen {
		return Entry{}, errShort
	}
	var e Entry
	err := attributes(m[nfgenmsgLen:], func(kind uint16, value []byte) error {
		switch kind {
		case ctaTupleOrig:
			return parseTuple(value, &e.Original)
		case ctaTupleReply:
			return parseTuple(value, &e.Reply)
		case ctaStatus:
			return read32(value, &e.Status)
		case ctaMark:
			return read32(value, &e.Mark)
		case ctaZone:
			return read16(value, &e.Zone)
		case ctaID:
			return read32(value, &e.id)
		case ctaTimeout:
			var seconds uint32
			err := read32(value, &seconds)
			e.Timeout = time.Duration(seconds) * time.Second
			return err
		case ctaProtoInfo:
			return parseProtoInfo(value, &e)
		case ctaCountOrig:
			e.Counted = true
			return parseCounters(value, &e.Sent)
		case ctaCountReply:
			return parseCounters(value, &e.Received)
		}
		return nil
	})
	return e, err
}

func parseCounters(b []byte, c *Counters) error {
	return attributes(b, func(kind uint16, value []byte) error {
		switch kind {
		case ctaCountersPackets:
			return read64(value, &c.Packets)
		case ctaCountersBytes:
			return read64(value, &c.Bytes)
		}
		return nil
	})
}

func parseTuple(b []byte, t *Tuple) error {
	return attributes(b, func(kind uint16, value []byte) error {
		switch kind {
		case ctaTupleIP:
			return attributes(value, func(kind uint16, value []byte) error {
				addr, ok := netip.AddrFromSlice(value)
				if !ok {
					return errShort
				}
				switch kind {
				case ctaIPv4Src, ctaIPv6Src:
					t.Src = addr
				case ctaIPv4Dst, ctaIPv6Dst:
					t.Dst = addr
				}
				return nil
			})
		case ctaTupleProto:
			return attributes(value, func(kind uint16, value []byte) error {
				switch kind {
				case ctaProtoNum:
					return read8(value, &t.Protocol)
				case ctaProtoSrcPort:
					return read16(value, &t.SrcPort)
				case ctaProtoDstPort:
					return read16(value, &t.DstPort)
				case ctaProtoICMPID, ctaProtoICMPv6ID:
					return read16(value, &t.ICMPID)
				case ctaProtoICMPType, ctaProtoICMPv6Type:
					return read8(value, &t.ICMPType)
				case ctaProtoICMPCode, ctaProtoICMPv6Code:
					return read8(value, &t.ICMPCode)
				}
				return nil
			})
		}
		return nil
	})
}

func parseProtoInfo(b []byte, e *Entry) error {
	return attributes(b, func(kind uint16, value []byte) error {
		if kind != ctaProtoInfoTCP {
			return nil
		}
		return attributes(value, func(kind uint16, value []byte) error {
			switch kind {
			case ctaTCPState:
				return read8(value, &e.TCPState)
			case ctaTCPFlagsOrig:
				var flags uint8
				err := read8(value, &flags)
				e.liberal = flags&beLiberal != 0
				return err
			}
			return nil
		})
	})
}

// attributes walks netlink attributes (include/uapi/linux/netlink.h, struct nlattr).
func attributes(b []byte, each func(kind uint16, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < attrHeader {
			return errShort
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < attrHeader || size > len(b) {
			return errShort
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := each(kind, b[attrHeader:size]); err != nil {
			return err
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

func read32(b []byte, to *uint32) error {
	if len(b) < 4 {
		return errShort
	}
	*to = binary.BigEndian.Uint32(b)
	return nil
}

func read16(b []byte, to *uint16) error {
	if len(b) < 2 {
		return errShort
	}
	*to = binary.BigEndian.Uint16(b)
	return nil
}

func read64(b []byte, to *uint64) error {
	if len(b) < 8 {
		return errShort
	}
	*to = binary.BigEndian.Uint64(b)
	return nil
}

func read8(b []byte, to *uint8) error {
	if len(b) < 1 {
		return errShort
	}
	*to = b[0]
	return nil
}
