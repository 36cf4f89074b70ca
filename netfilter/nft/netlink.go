package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// request sends one request and gives each attribute of each answer to visit, and
// calls end after each answer. What is not there gives no answer and no error.
func request(kind int, f family, flags int, attrs []*nl.RtAttr, visit func(kind uint16, value string) error, end func()) error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(f), Version: nl.NFNETLINK_V0})
	for _, a := range attrs {
		req.AddData(a)
	}
	var bad error
	err := req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(m []byte) bool {
		if len(m) < nl.SizeofNfgenmsg {
			bad = fmt.Errorf("nfnetlink message of %d bytes", len(m))
			return false
		}
		bad = each(string(m[nl.SizeofNfgenmsg:]), visit)
		end()
		return bad == nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return errors.Join(err, bad)
}

// named is an attribute that names an object.
func named(kind int, name string) []*nl.RtAttr {
	return []*nl.RtAttr{nl.NewRtAttr(kind, nl.ZeroTerminated(name))}
}

// each walks netlink attributes: length and type in the host's order, the value
// padded to four bytes (include/uapi/linux/netlink.h).
func each(attrs string, visit func(kind uint16, value string) error) error {
	for len(attrs) >= 4 {
		size := int(binary.NativeEndian.Uint16([]byte(attrs[:2])))
		kind := binary.NativeEndian.Uint16([]byte(attrs[2:4])) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if size < 4 || size > len(attrs) {
			return fmt.Errorf("netlink attribute of %d bytes in %d", size, len(attrs))
		}
		if err := visit(kind, attrs[4:size]); err != nil {
			return err
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return nil
}

// Values of nf_tables are in network order; one of another length is none.
func be32(value string) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32([]byte(value))
}

func be64(value string) uint64 {
	if len(value) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(value))
}

func text(value string) string { return strings.TrimRight(value, "\x00") }
