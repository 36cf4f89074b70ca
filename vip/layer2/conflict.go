package layer2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/vip"
)

// Conflict is another host's claim to an address.
type Conflict struct {
	Addr      netip.Addr
	Interface string
	MAC       net.HardwareAddr
	At        time.Time
	Answered  bool // it says so to this host, which has asked
}

// conflictEvery bounds the reports about one address and MAC: a host that fights
// for an address sends as fast as it can.
const conflictEvery = 10 * time.Second

// Conflicts listens for other MACs that claim a VIP. Whether a claim is wrong is for
// the listener to say: on a standby it is the holder's.
type Conflicts struct {
	ends  []end
	conns []*packet.Conn
}

// ListenConflicts opens the ears; Run listens, and Close is needed only without Run.
func (h *Host) ListenConflicts(v vip.VIP) (*Conflicts, error) {
	c := &Conflicts{}
	for i, addr := range v.Addrs() {
		name := []string{v.Interface, v.ViaInterface}[i]
		conn, e, err := h.listen(addr, name)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("listen for claims to %s on %s: %w", addr, name, err)
		}
		c.ends, c.conns = append(c.ends, e), append(c.conns, conn)
	}
	return c, nil
}

// listen opens a socket that gets the ARP packets whose sender address is addr.
func (h *Host) listen(addr netip.Addr, name string) (*packet.Conn, end, error) {
	if !addr.Is4() {
		return nil, end{}, errors.New("only IPv4 addresses can be listened for yet")
	}
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 28, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(addr.AsSlice()), SkipTrue: 1},
		bpf.RetConstant{Val: 64},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, end{}, err
	}
	var conn *packet.Conn
	var e end
	err = h.inside(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		e = end{addr: addr, iface: name, index: ifi.Index, mac: ifi.HardwareAddr}
		conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: filter})
		return err
	})
	return conn, e, err
}

// Close stops listening.
func (c *Conflicts) Close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// Run calls report, from one goroutine per interface, until ctx is done.
func (c *Conflicts) Run(ctx context.Context, report func(Conflict)) error {
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, c.Close)()
	for i, conn := range c.conns {
		e := c.ends[i]
		group.Go(func() error {
			reported := map[string]time.Time{}
			for {
				got, err := receive(conn, e)
				if ctx.Err() != nil {
					return nil
				}
				if errors.Is(err, unix.ENETDOWN) {
					continue // told once per fall of the interface; the socket hears again when it is up
				}
				if err != nil {
					return fmt.Errorf("listen for claims to %s on %s: %w", e.addr, e.iface, err)
				}
				if last, is := reported[got.MAC.String()]; is && got.At.Sub(last) < conflictEvery {
					continue
				}
				if len(reported) > 64 {
					clear(reported) // somebody makes up MACs
				}
				reported[got.MAC.String()] = got.At
				report(got)
			}
		})
	}
	err := group.Wait()
	c.Close()
	return err
}

// receive waits for the next claim by a MAC that is not ours.
func receive(conn *packet.Conn, e end) (Conflict, error) {
	buf := make([]byte, 64)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return Conflict{}, err
		}
		p, ok := parseARP(buf[:n])
		if ok && p.senderIP == e.addr && !bytes.Equal(p.sender, e.mac) {
			return Conflict{Addr: e.addr, Interface: e.iface, MAC: p.sender, At: time.Now(), Answered: p.op == arpReply && bytes.Equal(p.target, e.mac)}, nil
		}
	}
}

// probes is how often Probe asks; RFC 5227 (section 1.1, PROBE_NUM) has three too.
const probes = 3

// Probe asks the segments who has the VIP's addresses, by ARP probes (RFC 5227), and
// returns the first other host that answers within wait.
func (h *Host) Probe(ctx context.Context, v vip.VIP, wait time.Duration) (Conflict, bool, error) {
	c, err := h.ListenConflicts(v)
	if err != nil {
		return Conflict{}, false, fmt.Errorf("probe %s: %w", v, err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	found := make(chan Conflict, 1)
	var group errgroup.Group
	group.Go(func() error {
		defer cancel()
		return c.Run(ctx, func(got Conflict) {
			if !got.Answered {
				return // it was said before, perhaps
			}
			select {
			case found <- got:
			default:
			}
			cancel()
		})
	})
	group.Go(func() error {
		for range probes {
			for _, e := range c.ends {
				frame := arpFrame(arpRequest, e.mac, netip.IPv4Unspecified(), nil, e.addr)
				if err := h.send(e.index, frame); err != nil {
					cancel()
					return fmt.Errorf("probe %s on %s: %w", e.addr, e.iface, err)
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait / time.Duration(probes+1)):
			}
		}
		return nil
	})
	err = group.Wait()
	select {
	case got := <-found:
		return got, true, nil
	default:
		return Conflict{}, false, err
	}
}
