package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Config of a member. Zero durations and counts take their defaults.
type Config struct {
	// Name of this member, unique in the group: the node's name.
	Name string
	// Bind is the address this host listens on, UDP and TCP, and the address the
	// others reach it by. It must be an address of this host, with a port.
	Bind netip.AddrPort
	// Join are the members to find at the start and after a partition: "ip",
	// "ip:port", "[ip]:port", "host" or "host:port"; without a port, Bind's. It may
	// contain this member itself. Give all members, not a seed: the two halves of a
	// partition find each other again only through addresses they know.
	Join []string
	// Keys are AES-256 keys as LoadKeys returns them: the first encrypts, all decrypt.
	Keys [][]byte
	Log  *slog.Logger

	// RejoinEvery is how often missing peers are asked to join: after each pause
	// of one to two times this. Default 1 s.
	RejoinEvery time.Duration
	// ProbeInterval, ProbeTimeout and SuspicionMult set how soon memberlist buries a
	// silent member: after about (2 + SuspicionMult) intervals. Its opinion is only
	// for display and re-joining, an election must not rest on it.
	// Defaults 200 ms, 100 ms, 3. The timeout must be less than the interval.
	ProbeInterval, ProbeTimeout time.Duration
	SuspicionMult               int
	// GossipToTheDead is how long buried members are still told what happens.
	// Default 30 s.
	GossipToTheDead time.Duration
	// LeaveTimeout bounds the farewell when Run ends. Default 500 ms.
	LeaveTimeout time.Duration
	// UnreachableAfter is the silence of a Join address that becomes a problem.
	// Default 10 s.
	UnreachableAfter time.Duration
	// ConflictAfter is how long two members must use one name to become a problem:
	// a member restarted on another address looks the same for about a second.
	// Default 3 s.
	ConflictAfter time.Duration
	// MaxDatagram is the largest UDP payload sent, in bytes; what does not fit in the
	// path's MTU is fragmented, and many networks lose fragments. Default 1400.
	MaxDatagram int
	// Queue is how many received messages wait for the reader of Messages; beyond
	// that the oldest is dropped and counted. Default 256.
	Queue int
}

func (c Config) withDefaults() Config {
	setDefault(&c.RejoinEvery, time.Second)
	setDefault(&c.ProbeInterval, 200*time.Millisecond)
	setDefault(&c.ProbeTimeout, c.ProbeInterval/2)
	setDefault(&c.SuspicionMult, 3)
	setDefault(&c.GossipToTheDead, 30*time.Second)
	setDefault(&c.LeaveTimeout, 500*time.Millisecond)
	setDefault(&c.UnreachableAfter, 10*time.Second)
	setDefault(&c.ConflictAfter, 3*time.Second)
	setDefault(&c.MaxDatagram, 1400)
	setDefault(&c.Queue, 256)
	c.Bind = unmap(c.Bind)
	return c
}

func setDefault[T time.Duration | int](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Validate names everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if err := validName(c.Name); err != nil {
		errs = append(errs, err)
	}
	switch addr := c.Bind.Addr(); {
	case !c.Bind.IsValid():
		errs = append(errs, errors.New("gossip address is missing: give the address of this host that the other members reach"))
	case addr.IsUnspecified() || addr.IsMulticast():
		errs = append(errs, fmt.Errorf("gossip address %s: the other members are told to reach this one there; give one address of this host", addr))
	case c.Bind.Port() == 0:
		errs = append(errs, fmt.Errorf("gossip address %s: port 0 cannot be reached by the others; give a fixed port", c.Bind))
	}
	for _, j := range c.Join {
		if _, _, err := splitJoin(j, c.Bind.Port()); err != nil {
			errs = append(errs, err)
		}
	}
	if err := validateKeys(c.Keys); err != nil {
		errs = append(errs, err)
	}
	if c.Log == nil {
		errs = append(errs, errors.New("gossip logger is missing"))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"rejoin interval", c.RejoinEvery}, {"probe interval", c.ProbeInterval}, {"probe timeout", c.ProbeTimeout},
		{"time of gossip to the dead", c.GossipToTheDead}, {"leave timeout", c.LeaveTimeout},
		{"unreachable time", c.UnreachableAfter}, {"conflict time", c.ConflictAfter},
	} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("gossip %s %s: must not be negative", d.name, d.value))
		}
	}
	if d := c.withDefaults(); d.ProbeTimeout >= d.ProbeInterval {
		errs = append(errs, fmt.Errorf("gossip probe timeout %s: must be shorter than the probe interval, %s", d.ProbeTimeout, d.ProbeInterval))
	}
	if c.SuspicionMult < 0 || c.Queue < 0 {
		errs = append(errs, fmt.Errorf("gossip suspicion %d, queue %d: must not be negative", c.SuspicionMult, c.Queue))
	}
	if c.MaxDatagram != 0 && (c.MaxDatagram < 512 || c.MaxDatagram > 65000) {
		errs = append(errs, fmt.Errorf("gossip datagram size %d: must be from 512 to 65000", c.MaxDatagram))
	}
	return errors.Join(errs...)
}

func validName(name string) error {
	switch {
	case name == "":
		return errors.New("gossip name is missing: give the name of this node")
	case len(name) > maxName:
		return fmt.Errorf("gossip name %.20q…: %d bytes, at most %d are possible", name, len(name), maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xfffd }):
		return fmt.Errorf("gossip name %q: spaces and control characters are not possible", name)
	}
	return nil
}

// splitJoin gives host and port of a Join entry.
func splitJoin(join string, port uint16) (host string, withPort uint16, err error) {
	if addr, err := netip.ParseAddr(strings.Trim(join, "[]")); err == nil {
		return addr.String(), port, nil
	}
	host = join
	if strings.Contains(join, ":") {
		var text string
		if host, text, err = net.SplitHostPort(join); err != nil {
			return "", 0, fmt.Errorf("--join %q: give an address or a host name, with a port or without", join)
		}
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("--join %q: port %q is not a number from 1 to 65535", join, text)
		}
		port = uint16(n)
	}
	if host == "" || strings.ContainsAny(host, " /,\t\n") {
		return "", 0, fmt.Errorf("--join %q: give an address or a host name, with a port or without", join)
	}
	return host, port, nil
}

// literal is the address of a Join entry that needs no look-up.
func literal(join string, port uint16) (netip.AddrPort, bool) {
	host, port, err := splitJoin(join, port)
	if err != nil {
		return netip.AddrPort{}, false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return unmap(netip.AddrPortFrom(addr, port)), true
}

// unmap writes an address the one way that can be compared.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
