package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// network opens sockets; tests open them in a network namespace.
type network interface {
	listenUDP(netip.AddrPort) (*net.UDPConn, error)
	listenTCP(netip.AddrPort) (*net.TCPListener, error)
	dialTCP(context.Context, string) (net.Conn, error)
}

type host struct{}

func (host) listenUDP(a netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
}

func (host) listenTCP(a netip.AddrPort) (*net.TCPListener, error) {
	return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
}

func (host) dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// transport is memberlist's way to the network. memberlist's own makes 64 KiB of
// garbage for each datagram, resolves the address text for each one sent, and
// leaves connections open when it is shut down.
type transport struct {
	network network
	udp     *net.UDPConn
	tcp     *net.TCPListener
	packets chan *memberlist.Packet
	streams chan net.Conn
	counts  *counters
	ctx     context.Context // ends with Shutdown: no connection outlives it
	cancel  context.CancelFunc
	readers sync.WaitGroup

	mu     sync.Mutex
	closed bool
	dials  sync.WaitGroup // memberlist dials from goroutines it does not wait for
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func listen(n network, bind netip.AddrPort, counts *counters) (*transport, error) {
	udp, err := n.listenUDP(bind)
	if err != nil {
		return nil, bindError("UDP", bind, err)
	}
	tcp, err := n.listenTCP(bind)
	if err != nil {
		return nil, errors.Join(bindError("TCP", bind, err), udp.Close())
	}
	// A burst of heartbeats must fit while this process waits for a CPU. The kernel
	// grants at most net.core.rmem_max, silently.
	if err := udp.SetReadBuffer(2 << 20); err != nil {
		return nil, errors.Join(fmt.Errorf("set receive buffer of gossip socket %s: %w", bind, err), udp.Close(), tcp.Close())
	}
	t := &transport{
		network: n, udp: udp, tcp: tcp, counts: counts,
		packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.readers.Go(t.readPackets)
	t.readers.Go(t.acceptStreams)
	return t, nil
}

func bindError(protocol string, bind netip.AddrPort, err error) error {
	cure := ""
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		cure = "; no interface of this host has that address: give one that `ip address` shows as --node-ip"
	case errors.Is(err, syscall.EADDRINUSE):
		cure = "; another program has the port (`ss -lntup` names it): end it or give another --gossip-port on every member"
	case errors.Is(err, syscall.EACCES):
		cure = "; ports below 1024 need CAP_NET_BIND_SERVICE: give a higher --gossip-port on every member"
	}
	var call *net.OpError
	if errors.As(err, &call) {
		err = call.Err
	}
	return fmt.Errorf("listen for gossip on %s %s: %w%s", protocol, bind, err, cure)
}

// again pauses after an error of a socket that goes on working, e.g. ENETDOWN; it
// is false when the transport is shut down.
func (t *transport) again() bool {
	select {
	case <-t.ctx.Done():
		return false
	case <-time.After(5 * time.Millisecond):
		return true
	}
}

func (t *transport) readPackets() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := t.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if !t.again() {
				return
			}
			continue
		}
		at := time.Now()
		t.counts.bytesReceived.Add(uint64(n))
		if n == 0 {
			continue
		}
		p := &memberlist.Packet{
			Buf:       append([]byte(nil), buf[:n]...),
			From:      net.UDPAddrFromAddrPort(unmap(from)),
			Timestamp: at,
		}
		select {
		case t.packets <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *transport) acceptStreams() {
	for {
		conn, err := t.tcp.Accept()
		if err != nil {
			if !t.again() {
				return
			}
			continue
		}
		conn = t.closedAtShutdown(conn)
		select {
		case t.streams <- conn:
		case <-t.ctx.Done():
			conn.Close()
			return
		}
	}
}

// stream is a connection that Shutdown closes unless its user has.
type stream struct {
	net.Conn
	forget func() bool
}

func (t *transport) closedAtShutdown(c net.Conn) net.Conn {
	return stream{c, context.AfterFunc(t.ctx, func() { c.Close() })}
}

func (s stream) Close() error {
	s.forget()
	return s.Conn.Close()
}

// FinalAdvertiseAddr gives back what Bind says.
func (t *transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, 0, err
	}
	return addr.AsSlice(), port, nil
}

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	n, err := t.udp.WriteToUDPAddrPort(b, to)
	t.counts.bytesSent.Add(uint64(n))
	return time.Now(), err
}

func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, net.ErrClosed
	}
	t.dials.Add(1)
	t.mu.Unlock()
	defer t.dials.Done()
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.network.dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	return t.closedAtShutdown(conn), nil
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams }

// Shutdown closes every socket and waits for those who use them.
func (t *transport) Shutdown() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	err := errors.Join(t.udp.Close(), t.tcp.Close())
	t.readers.Wait()
	t.dials.Wait()
	return err
}
