package wiring

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Of a port that leaves its bridge the kernel tells as of a deletion, in the bridge's
// family (br_if.c, br_del_if): its pod still lives.
func TestAPortThatLeavesItsBridgeIsNotGone(t *testing.T) {
	for family, gone := range map[uint8]bool{unix.AF_BRIDGE: false, unix.AF_UNSPEC: true} {
		tables := newTables()
		tables.add(5, "veth")
		u := netlink.LinkUpdate{Link: &netlink.Veth{}}
		u.Header.Type, u.Family, u.Index = unix.RTM_DELLINK, family, 5
		if told := tables.link(u); told != gone || tables.live[5] == gone {
			t.Errorf("family %d: told %t, live %t", family, told, tables.live[5])
		}
	}
}
