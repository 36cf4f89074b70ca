package conntrack

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Timeouts are how long this host's kernel keeps entries without a packet.
type Timeouts struct {
	tcp            [tcpClose + 1]time.Duration
	udp, udpStream time.Duration
	icmp, icmpv6   time.Duration
}

// ReadTimeouts reads net.netfilter.nf_conntrack_*_timeout*.
func ReadTimeouts() (Timeouts, error) {
	var t Timeouts
	for name, to := range map[string]*time.Duration{
		"tcp_timeout_established": &t.tcp[3], "tcp_timeout_fin_wait": &t.tcp[4],
		"tcp_timeout_close_wait": &t.tcp[5], "tcp_timeout_last_ack": &t.tcp[6], "tcp_timeout_time_wait": &t.tcp[7],
		"tcp_timeout_close": &t.tcp[8], "tcp_timeout_syn_sent": &t.tcp[1], "tcp_timeout_syn_recv": &t.tcp[2],
		"udp_timeout": &t.udp, "udp_timeout_stream": &t.udpStream,
		"icmp_timeout": &t.icmp, "icmpv6_timeout": &t.icmpv6,
	} {
		text, err := os.ReadFile(filepath.Join("/proc/sys/net/netfilter", "nf_conntrack_"+name))
		if err != nil {
			return t, fmt.Errorf("read the timeouts of connection tracking: %w", err)
		}
		seconds, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 31)
		if err != nil {
			return t, fmt.Errorf("read nf_conntrack_%s: %w", name, err)
		}
		*to = time.Duration(seconds) * time.Second
	}
	return t, nil
}

// Counting tells whether this host's kernel counts what its connections carry.
func Counting() bool {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_acct")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// Normal is how long the kernel keeps the entry on a host that its packets pass.
func (t Timeouts) Normal(e Entry) time.Duration {
	switch e.Original.Protocol {
	case unix.IPPROTO_TCP:
		if int(e.TCPState) < len(t.tcp) && t.tcp[e.TCPState] > 0 {
			return t.tcp[e.TCPState]
		}
		return t.tcp[TCPEstablished]
	case unix.IPPROTO_ICMP:
		return t.icmp
	case unix.IPPROTO_ICMPV6:
		return t.icmpv6
	}
	if e.Status&Assured != 0 {
		return t.udpStream
	}
	return t.udp
}

// StandbyLast is how long an entry stays on a host that its packets do not pass.
// Its end is told; this is for when nobody is left to tell it.
const StandbyLast = 24 * time.Hour

// Standby is the longer of that and what is normal.
func (t Timeouts) Standby(e Entry) time.Duration { return max(StandbyLast, t.Normal(e)) }

// Restored is the update that makes an entry of a standby an ordinary one of a host
// that its packets pass from now on; false when it is one. Windows that were
// followed here before are of long ago, and conntrack would call what lies beyond
// them invalid (nf_conntrack_proto_tcp.c, tcp_in_window): a TCP entry is made liberal,
// and no other connection of the host is.
func (t Timeouts) Restored(e Entry) (Entry, bool) {
	changed := Entry{Original: e.Original, Zone: e.Zone}
	if normal := t.Normal(e); e.Timeout > normal {
		changed.Timeout = normal
	}
	return changed, changed.Timeout > 0 || e.Original.Protocol == unix.IPPROTO_TCP && !e.liberal
}
