package conntrack

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	ctaNATMinIPv4 = 1
	ctaNATMaxIPv4 = 2
	ctaNATProto   = 3
	ctaNATMinIPv6 = 4
	ctaNATMaxIPv6 = 5

	ctaNATMinPort = 1
	ctaNATMaxPort = 2
)

// liberal are SACK_PERM and BE_LIBERAL (include/uapi/linux/netfilter/nf_conntrack_tcp.h),
// beLiberal is the latter alone.
// An entry of another host comes without the windows and their scale, and conntrack
// would call every packet invalid that lies beyond what it guesses of them.
const (
	liberal   = 0x02 | beLiberal
	beLiberal = 0x08
)

// Insert creates an entry that Dump or a Listener gave on another host, with its
// source translation. The connection then goes on here, whichever side speaks first.
// errors.Is(err, fs.ErrExist) tells that there is such an entry already.
func Insert(e Entry) error {
	req, err := e.insertion()
	if err != nil {
		return e.wrap("create", err)
	}
	return execute(req, "create", e)
}

// insertion asks for the entry to be created.
func (e Entry) insertion() (*nl.NetlinkRequest, error) {
	if e.Timeout < time.Second {
		return nil, fmt.Errorf("its timeout is %s, give it one of a second or more", e.Timeout)
	}
	untranslated := e.Original.Inverse()
	if e.Reply.Src != untranslated.Src || e.Reply.SrcPort != untranslated.SrcPort {
		return nil, fmt.Errorf("its destination is translated, to %s, and only sources can be",
			netip.AddrPortFrom(e.Reply.Src, e.Reply.SrcPort))
	}
	// The translated reply tuple would be accepted too, but IPS_SRC_NAT is only set by
	// a translation that changes the tuple (nf_nat_setup_info), and without it packets
	// leave as they came.
	attrs := append(e.state(liberal), untranslated.attr(ctaTupleReply))
	if e.Reply != untranslated {
		attrs = append(attrs, sourceNAT(e.Reply))
	}
	return e.change(unix.NLM_F_CREATE|unix.NLM_F_EXCL, attrs), nil
}

// Update changes timeout, status, TCP state and mark of the entry with e's original
// tuple and zone; what is zero in e stays as it is, but for a connection of TCP, which
// is not judged by its windows any more. The status can only grow, and the translation
// cannot change. errors.Is(err, fs.ErrNotExist) tells that there is no
// such entry.
func Update(e Entry) error {
	return execute(e.change(0, e.state(liberal)), "update", e)
}

// change asks for the entry to be made or changed: both are IPCTNL_MSG_CT_NEW.
func (e Entry) change(flags int, attrs []*nl.RtAttr) *nl.NetlinkRequest {
	req := e.request(newEntry, flags)
	for _, a := range attrs {
		req.AddData(a)
	}
	return req
}

func execute(req *nl.NetlinkRequest, doing string, e Entry) error {
	if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil {
		return e.wrap(doing, err)
	}
	return nil
}

func (e Entry) wrap(doing string, err error) error {
	return fmt.Errorf("%s tracked connection %s in zone %d: %w", doing, e.Original, e.Zone, err)
}

// state are the attributes of what may change in the life of an entry.
func (e Entry) state(tcpFlags byte) []*nl.RtAttr {
	var attrs []*nl.RtAttr
	if e.Timeout != 0 {
		attrs = append(attrs, nl.NewRtAttr(ctaTimeout, be32(uint32(e.Timeout/time.Second))))
	}
	if e.Status != 0 {
		// Without CONFIRMED the kernel says EBUSY. The bits of translation are its own.
		attrs = append(attrs, nl.NewRtAttr(ctaStatus, be32(e.Status&(SeenReply|Assured)|confirmed)))
	}
	if e.Mark != 0 {
		attrs = append(attrs, nl.NewRtAttr(ctaMark, be32(e.Mark)))
	}
	if e.Original.Protocol == unix.IPPROTO_TCP && (e.TCPState != 0 || tcpFlags != 0) {
		info := nested(ctaProtoInfo)
		tcp := info.AddRtAttr(ctaProtoInfoTCP|unix.NLA_F_NESTED, nil)
		if e.TCPState != 0 {
			tcp.AddRtAttr(ctaTCPState, []byte{e.TCPState})
		}
		if tcpFlags != 0 {
			tcp.AddRtAttr(ctaTCPFlagsOrig, []byte{tcpFlags, tcpFlags})
			tcp.AddRtAttr(ctaTCPFlagsReply, []byte{tcpFlags, tcpFlags})
		}
		attrs = append(attrs, info)
	}
	return attrs
}

// sourceNAT asks for exactly the source that the reply is sent to: a range of one
// address and one port, or one id of ICMP.
func sourceNAT(reply Tuple) *nl.RtAttr {
	lowest, highest, port := ctaNATMinIPv4, ctaNATMaxIPv4, reply.DstPort
	if reply.family() == IPv6 {
		lowest, highest = ctaNATMinIPv6, ctaNATMaxIPv6
	}
	if reply.icmp() {
		port = reply.ICMPID
	}
	nat := nested(ctaNATSrc)
	nat.AddRtAttr(lowest, reply.Dst.AsSlice())
	nat.AddRtAttr(highest, reply.Dst.AsSlice())
	proto := nat.AddRtAttr(ctaNATProto|unix.NLA_F_NESTED, nil)
	proto.AddRtAttr(ctaNATMinPort, be16(port))
	proto.AddRtAttr(ctaNATMaxPort, be16(port))
	return nat
}
