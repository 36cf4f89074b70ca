package lab

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/e2e/netns"
)

// The partner's servers, each on PartnerAddr and on PublicAddr.
const (
	TCPPort     = 8443 // says "address:port" of its client in a line, then echoes
	HTTPPort    = 8080 // GET / gives the client's address
	UDPPort     = 7007 // echoes a datagram with the client's address and port behind it
	PushPort    = 8444 // sends a numbered record every few milliseconds, see pushRecord
	DiscardPort = 9009 // TCP and UDP: counts what arrives
)

// PushEvery is the pace of the push server.
const PushEvery = 5 * time.Millisecond

// Services of the partner, as Seen counts them.
const (
	ServiceTCP  = "tcp"
	ServiceHTTP = "http"
	ServiceUDP  = "udp"
	ServicePush = "push"
)

// Partner is the party outside: real servers in a namespace of their own, whose
// nftables admits only the VIPs and counts everything else.
type Partner struct {
	// DiscardedBytes and DiscardedPackets count what DiscardPort took: bytes over
	// TCP and UDP, datagrams over UDP.
	DiscardedBytes, DiscardedPackets atomic.Uint64

	ns   *netns.NS
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	seen    map[string]map[netip.Addr]int
	conns   map[io.Closer]bool
	closing bool
}

func (l *Lab) startPartner() (*Partner, error) {
	m, err := l.machine(PartnerHost)
	if err != nil {
		return nil, err
	}
	p := newPartner(m.NS)
	if err := m.nft(partnerTable(l.Options.VIPs)); err != nil {
		return p, err
	}
	return p, p.serve(0)
}

func newPartner(ns *netns.NS) *Partner {
	p := &Partner{ns: ns, seen: map[string]map[netip.Addr]int{}, conns: map[io.Closer]bool{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// serve listens on all ports, each higher by shift.
func (p *Partner) serve(shift uint16) error {
	return p.ns.Do(func() error {
		for _, a := range []netip.Addr{PartnerAddr, PublicAddr} {
			for port, serve := range map[uint16]func(net.Conn){TCPPort: p.echo, PushPort: p.push, DiscardPort: p.discard} {
				if err := p.listen(netip.AddrPortFrom(a, port+shift), serve); err != nil {
					return err
				}
			}
			if err := p.listenHTTP(netip.AddrPortFrom(a, HTTPPort+shift)); err != nil {
				return err
			}
			if err := p.listenUDP(netip.AddrPortFrom(a, UDPPort+shift), p.echoDatagrams); err != nil {
				return err
			}
			if err := p.listenUDP(netip.AddrPortFrom(a, DiscardPort+shift), p.discardDatagrams); err != nil {
				return err
			}
		}
		return nil
	})
}

// Seen says how many connections (datagrams, for UDP) each source made to a
// service, "" for all.
func (p *Partner) Seen(service string) map[netip.Addr]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	total := map[netip.Addr]int{}
	for s, sources := range p.seen {
		if service == "" || service == s {
			for a, n := range sources {
				total[a] += n
			}
		}
	}
	return total
}

// Forget sets what was seen back to nothing.
func (p *Partner) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.seen)
}

func (p *Partner) saw(service string, a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[service] == nil {
		p.seen[service] = map[netip.Addr]int{}
	}
	p.seen[service][a.Unmap()]++
}

// track keeps a listener or connection for close; false says it is too late.
func (p *Partner) track(c io.Closer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		_ = c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Partner) untrack(c io.Closer) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Partner) close() {
	p.stop()
	p.mu.Lock()
	p.closing = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Partner) listen(at netip.AddrPort, serve func(net.Conn)) error {
	ln, err := net.Listen("tcp4", at.String())
	if err != nil {
		return fmt.Errorf("partner: listen on tcp %s: %w", at, err)
	}
	p.track(ln)
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if p.track(c) {
				p.wg.Go(func() { defer p.untrack(c); serve(c) })
			}
		}
	})
	return nil
}

func source(c net.Conn) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	return ap
}

func (p *Partner) echo(c net.Conn) {
	p.saw(ServiceTCP, source(c).Addr())
	if _, err := fmt.Fprintf(c, "%s\n", source(c)); err == nil {
		_, _ = io.Copy(c, c)
	}
}

// pushRecord is what the push server sends: number and time of sending, each
// eight bytes. The time is on the clock of the process, which pods' clients share.
type pushRecord struct {
	Seq  uint64
	Nano int64 // since epoch
}

var epoch = time.Now()

func (p *Partner) push(c net.Conn) {
	p.saw(ServicePush, source(c).Addr())
	_, err := fmt.Fprintf(c, "%s\n", source(c))
	for seq := uint64(0); err == nil && p.ctx.Err() == nil; seq++ {
		err = binary.Write(c, binary.BigEndian, pushRecord{seq, int64(time.Since(epoch))})
		time.Sleep(PushEvery) // the pace is the purpose; it need not be exact
	}
}

func (p *Partner) discard(c net.Conn) {
	buf := make([]byte, 256<<10)
	for {
		n, err := c.Read(buf)
		p.DiscardedBytes.Add(uint64(n))
		if err != nil {
			return
		}
	}
}

func (p *Partner) listenHTTP(at netip.AddrPort) error {
	ln, err := net.Listen("tcp4", at.String())
	if err != nil {
		return fmt.Errorf("partner: listen on http %s: %w", at, err)
	}
	srv := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from, _ := netip.ParseAddrPort(r.RemoteAddr)
			p.saw(ServiceHTTP, from.Addr())
			fmt.Fprintln(w, from.Addr())
		}),
	}
	p.track(srv)
	p.wg.Go(func() { _ = srv.Serve(ln) })
	return nil
}

func (p *Partner) listenUDP(at netip.AddrPort, serve func(*net.UDPConn)) error {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return fmt.Errorf("partner: listen on udp %s: %w", at, err)
	}
	_ = c.SetReadBuffer(4 << 20) // less is granted where the limit is lower
	p.track(c)
	p.wg.Go(func() { serve(c) })
	return nil
}

func (p *Partner) echoDatagrams(c *net.UDPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			continue // an ICMP error of an earlier answer
		}
		p.saw(ServiceUDP, from.Addr())
		_, _ = c.WriteToUDPAddrPort(appendSource(buf[:n], from), from)
	}
}

func (p *Partner) discardDatagrams(c *net.UDPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		p.DiscardedBytes.Add(uint64(n))
		p.DiscardedPackets.Add(1)
	}
}

// appendSource puts six bytes behind a datagram: address and port.
func appendSource(b []byte, from netip.AddrPort) []byte {
	a := from.Addr().Unmap().As4()
	return binary.BigEndian.AppendUint16(append(b, a[:]...), from.Port())
}

func cutSource(b []byte) (payload []byte, from netip.AddrPort, ok bool) {
	n := len(b) - 6
	if n < 0 {
		return nil, netip.AddrPort{}, false
	}
	return b[:n], netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[n:n+4])), binary.BigEndian.Uint16(b[n+4:])), true
}

// readSource reads the line that TCPPort and PushPort begin with.
func readSource(r *bufio.Reader) (netip.AddrPort, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the partner's greeting: %w", err)
	}
	return netip.ParseAddrPort(strings.TrimSpace(line))
}
