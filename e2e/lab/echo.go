package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Echo asks a UDP echo server, all from one port.
type Echo struct {
	*client
	conn *net.UDPConn
}

// StartEcho starts a UDP echo client in a pod, towards the UDPPort of an address.
func (l *Lab) StartEcho(pod string, to netip.Addr, every time.Duration) (*Echo, error) {
	return l.StartEchoFrom(pod, 0, to, every)
}

// StartEchoFrom is StartEcho from a port of the caller's choice, which another pod may
// use, too.
func (l *Lab) StartEchoFrom(pod string, port int, to netip.Addr, every time.Duration) (*Echo, error) {
	p, err := l.Pod(pod)
	if err != nil {
		return nil, err
	}
	e := &Echo{client: newClient()}
	err = p.ns.Do(func() error {
		e.conn, err = net.DialUDP("udp4", &net.UDPAddr{Port: port}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, UDPPort+l.shift)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start udp echo in %s: %w", pod, err)
	}
	// What waited while a VIP moved comes at once, and 208 KB are full after 277 answers.
	_ = e.conn.SetReadBuffer(4 << 20) // less is granted where the limit is lower
	e.hangUp = func() { _ = e.conn.Close() }
	e.rest.Go(e.listen)
	if err := e.run(l, p, every, e.send); err != nil {
		_ = e.conn.Close()
		return nil, err
	}
	return e, nil
}

// Local is the client's own address.
func (e *Echo) Local() netip.AddrPort { return e.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (e *Echo) send(int) {
	n := e.ask(Exchange{Sent: time.Now()})
	// An error here is an ICMP error about an earlier datagram; this one is not sent
	// then, so it is sent again.
	payload := binary.BigEndian.AppendUint64(nil, uint64(n))
	if _, err := e.conn.Write(payload); err != nil {
		_, _ = e.conn.Write(payload)
	}
}

func (e *Echo) listen() {
	buf := make([]byte, 2048)
	for {
		n, err := e.conn.Read(buf)
		at := time.Now()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			continue
		}
		if payload, from, ok := cutSource(buf[:n]); ok && len(payload) == 8 {
			e.answer(int(binary.BigEndian.Uint64(payload)), at, from, nil)
		}
	}
}
