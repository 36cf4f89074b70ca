package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vishns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// switchTable lets faults be made between ports without touching a node: nothing
// on the nodes shows them but that packets do not arrive.
const switchTable = `table bridge lab {
	set cut {
		type ifname . ifname
	}
	set mute {
		type ifname
	}
	chain loss {
	}
	chain forward {
		type filter hook forward priority 0
		jump loss
		iifname . oifname @cut drop
		iifname @mute goto gossip
		oifname @mute goto gossip
	}
	chain gossip {
		udp dport %[1]d drop
		udp sport %[1]d drop
		tcp dport %[1]d drop
		tcp sport %[1]d drop
	}
}
`

func (l *Lab) switchRules() error {
	return l.onSwitch(fmt.Sprintf(switchTable, l.Options.GossipPort))
}

func (l *Lab) onSwitch(script string) error {
	sw, err := l.machine(Switch)
	if err != nil {
		return err
	}
	return sw.nft(script)
}

// Bridge port states (include/uapi/linux/if_bridge.h).
const (
	portDisabled   = 0
	portForwarding = 3
)

// setPort makes a port of the switch pass frames, or drop them all while the
// carrier stays: the host behind it notices nothing.
func (l *Lab) setPort(port string, state byte) error {
	sw, err := l.machine(Switch)
	if err != nil {
		return err
	}
	link, err := sw.nl.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port %s of the switch: %w", port, err)
	}
	sock, err := nl.GetNetlinkSocketAt(vishns.NsHandle(sw.FD()), vishns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", sw.Name, err)
	}
	defer sock.Close()
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: sock}}
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(link.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_BRPORT_STATE, []byte{state})
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("set port %s of the switch to state %d: %w", port, state, err)
	}
	return nil
}

// setCarrier takes the carrier from the host behind a port, or gives it back.
func (l *Lab) setCarrier(port string, up bool) error {
	sw, err := l.machine(Switch)
	if err != nil {
		return err
	}
	link, err := sw.nl.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port %s of the switch: %w", port, err)
	}
	set := sw.nl.LinkSetDown
	if up {
		set = sw.nl.LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set port %s of the switch up=%t: %w", port, up, err)
	}
	return nil
}

// ports are the switch's ports of node j.
func (l *Lab) ports(j int) []string {
	if l.Options.TwoNetworks {
		return []string{NodeName(j), insidePort(j)}
	}
	return []string{NodeName(j)}
}

// unplug removes node j's links, so that their names are free at once.
func (l *Lab) unplug(j int) error {
	sw, err := l.machine(Switch)
	if err != nil {
		return err
	}
	for _, port := range l.ports(j) {
		link, err := sw.nl.LinkByName(port)
		if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
			continue
		} else if err != nil {
			return fmt.Errorf("find port %s of the switch: %w", port, err)
		}
		if err := sw.nl.LinkDel(link); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove port %s of the switch: %w", port, err)
		}
	}
	return nil
}

// elements renders pairs or single names for an nft script.
func elements(set string, names ...[]string) string {
	if len(names) == 0 {
		return ""
	}
	var all []string
	for _, n := range names {
		all = append(all, `"`+strings.Join(n, `" . "`)+`"`)
	}
	return fmt.Sprintf("add element bridge lab %s { %s }\n", set, strings.Join(all, ", "))
}
