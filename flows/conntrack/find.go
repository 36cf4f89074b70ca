package conntrack

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Find reads the one entry of a zone whose answers have a tuple. errors.Is(err, fs.ErrNotExist)
// tells that there is none.
func Find(reply Tuple, zone uint16) (Entry, error) {
	sought := Entry{Zone: zone}
	req := nl.NewNetlinkRequest(getEntries, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(reply.family()), Version: nl.NFNETLINK_V0})
	req.AddData(reply.attr(ctaTupleReply))
	messages, err := sought.inZone(req).Execute(unix.NETLINK_NETFILTER, 0)
	if err == nil && len(messages) == 0 {
		err = unix.ENOENT
	}
	if err != nil {
		return Entry{}, fmt.Errorf("find the tracked connection that %s answers in zone %d: %w", reply, zone, err)
	}
	return parse(messages[0])
}
