package layer2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// waitingRoom is how many bytes of packets may wait for a VIP's next holder: half a
// second of 40,000 small ones a second, each counted with its memory of 768 bytes. The
// kernel's own setting, 208 KB, is for 277.
const waitingRoom = 16 << 20

// Attributes of include/uapi/linux/neighbour.h.
const (
	ndtaName         = 1
	ndtaParms        = 6
	ndtpaIndex       = 1
	ndtpaQueueLength = 16 // NDTPA_QUEUE_LENBYTES, the sysctl unres_qlen_bytes
	arpCache         = "arp_cache\x00"
)

// arpSettings is a struct ndtmsg.
type arpSettings struct{}

func (arpSettings) Len() int          { return 4 }
func (arpSettings) Serialize() []byte { return []byte{unix.AF_INET, 0, 0, 0} }

// queues are how many bytes of packets may wait for a neighbour to be resolved now, on
// each interface of a VIP.
func (r *Relay) queues() (map[int]uint32, error) {
	all, err := r.host.allQueues()
	if err != nil {
		return nil, err
	}
	out := map[int]uint32{}
	for _, v := range r.vips {
		for _, iface := range []string{v.Interface, v.ViaInterface} {
			if iface == "" {
				continue
			}
			link, err := r.host.links.LinkByName(iface)
			if err != nil {
				return nil, fmt.Errorf("find interface %q: %w", iface, err)
			}
			if bytes, is := all[link.Attrs().Index]; is {
				out[link.Attrs().Index] = bytes
			}
		}
	}
	return out, nil
}

// restoreQueues makes the queues what they were before this process, or one before it
// whose table is there, made them larger.
func (r *Relay) restoreQueues() error {
	before := maps.Clone(r.before)
	clear(r.before)
	if set, err := r.nft.GetSetByName(relayTable(), queues); err == nil {
		elements, err := r.nft.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("read map %s of the relay: %w", queues, err)
		}
		for _, e := range elements {
			recordQueue(before, e)
		}
	}
	var errs []error
	for _, index := range slices.Sorted(maps.Keys(before)) {
		errs = append(errs, r.host.setQueue(index, before[index]))
	}
	return errors.Join(errs...)
}

func recordQueue(before map[int]uint32, e nftables.SetElement) {
	if len(e.Key) == 4 && len(e.Val) == 4 {
		before[int(binary.NativeEndian.Uint32(e.Key))] = binary.NativeEndian.Uint32(e.Val)
	}
}

// allQueues are the rooms for packets that wait for a neighbour's address, by interface.
func (h *Host) allQueues() (map[int]uint32, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGHTBL, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: h.routes}
	req.AddData(arpSettings{})
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGHTBL)
	if err != nil {
		return nil, fmt.Errorf("list the settings of neighbours: %w", err)
	}
	out := map[int]uint32{}
	for _, m := range messages {
		if len(m) < 4 {
			continue
		}
		top, err := attributes(m[4:])
		if err != nil || string(top[ndtaName]) != arpCache {
			continue
		}
		inner, err := attributes(top[ndtaParms])
		if index, bytes := inner[ndtpaIndex], inner[ndtpaQueueLength]; err == nil && len(index) == 4 && len(bytes) == 4 {
			out[int(binary.NativeEndian.Uint32(index))] = binary.NativeEndian.Uint32(bytes)
		}
	}
	return out, nil
}

func attributes(b []byte) (map[uint16][]byte, error) {
	all, err := nl.ParseRouteAttr(b)
	out := make(map[uint16][]byte, len(all))
	for _, a := range all {
		out[a.Attr.Type&^unix.NLA_F_NESTED] = a.Value
	}
	return out, err
}

// setQueue tolerates that the interface has gone, and its settings with it.
func (h *Host) setQueue(index int, bytes uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETNEIGHTBL, unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: h.routes}
	req.AddData(arpSettings{})
	req.AddData(nl.NewRtAttr(ndtaName, []byte(arpCache)))
	parms := nl.NewRtAttr(ndtaParms|unix.NLA_F_NESTED, nil)
	parms.AddRtAttr(ndtpaIndex, binary.NativeEndian.AppendUint32(nil, uint32(index)))
	parms.AddRtAttr(ndtpaQueueLength, binary.NativeEndian.AppendUint32(nil, bytes))
	req.AddData(parms)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("let %d bytes of packets wait for a neighbour on interface %d: %w", bytes, index, err)
	}
	return nil
}
