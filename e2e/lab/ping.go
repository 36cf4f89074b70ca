package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Ping sends ICMP echo requests, all of one identifier. What the partner sees them as
// nobody tells.
type Ping struct {
	*client
	conn *net.IPConn
	id   uint16
}

// StartPing starts a client in a pod that pings an address with an identifier.
func (l *Lab) StartPing(pod string, id uint16, to netip.Addr, every time.Duration) (*Ping, error) {
	p, err := l.Pod(pod)
	if err != nil {
		return nil, err
	}
	e := &Ping{client: newClient(), id: id}
	err = p.ns.Do(func() error {
		e.conn, err = net.DialIP("ip4:icmp", nil, &net.IPAddr{IP: to.AsSlice()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start pings in %s: %w", pod, err)
	}
	e.hangUp = func() { _ = e.conn.Close() }
	e.rest.Go(e.listen)
	if err := e.run(l, p, every, e.send); err != nil {
		_ = e.conn.Close()
		return nil, err
	}
	return e, nil
}

// Local is the client's own address, and its identifier for a port.
func (e *Ping) Local() netip.AddrPort {
	a, _ := netip.AddrFromSlice(e.conn.LocalAddr().(*net.IPAddr).IP)
	return netip.AddrPortFrom(a.Unmap(), e.id)
}

func (e *Ping) send(int) {
	n := e.ask(Exchange{Sent: time.Now()})
	msg := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{
		ID: int(e.id), Seq: n & 0xffff, Data: binary.BigEndian.AppendUint64(nil, uint64(n)),
	}}
	b, err := msg.Marshal(nil)
	if err != nil {
		e.fail(n, err)
		return
	}
	// An error here is an ICMP error about an earlier one.
	if _, err := e.conn.Write(b); err != nil {
		_, _ = e.conn.Write(b)
	}
}

func (e *Ping) listen() {
	buf := make([]byte, 2048)
	for {
		n, _, err := e.conn.ReadFromIP(buf)
		at := time.Now()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			continue
		}
		msg, err := icmp.ParseMessage(unix.IPPROTO_ICMP, buf[:n])
		if err != nil || msg.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		if echo, ok := msg.Body.(*icmp.Echo); ok && echo.ID == int(e.id) && len(echo.Data) == 8 {
			e.answer(int(binary.BigEndian.Uint64(echo.Data)), at, netip.AddrPort{}, nil)
		}
	}
}
