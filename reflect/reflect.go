// Package reflect tells whoever connects as which address and port it sees him, in one
// line: what a partner's firewall would see.
package reflect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

// question is as long as an answer can be, so that nobody uses the server to send
// more to a forged source than he sends himself.
const question = 64

// Question is a datagram that is answered.
func Question() []byte { return make([]byte, question) }

// Server answers on TCP and UDP.
type Server struct {
	tcp *net.TCPListener
	udp *net.UDPConn
	log *slog.Logger
}

// Listen binds the address, "ADDRESS:PORT" or ":PORT", for TCP and UDP.
func Listen(addr string, log *slog.Logger) (*Server, error) {
	at, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w: give ADDRESS:PORT or :PORT", addr, err)
	}
	s := &Server{log: log}
	if s.tcp, err = net.ListenTCP("tcp", at); err != nil {
		return nil, fmt.Errorf("--listen %s: %w: give an address of this host and a free port", addr, err)
	}
	at, _ = s.tcp.Addr().(*net.TCPAddr) // the port that 0 became
	if s.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port, Zone: at.Zone}); err != nil {
		s.tcp.Close()
		return nil, fmt.Errorf("--listen %s: %w: give an address of this host and a free port", addr, err)
	}
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() netip.AddrPort {
	at, _ := netip.ParseAddrPort(s.tcp.Addr().String())
	return at
}

// Run serves until the context ends.
func (s *Server) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.tcp.Close(); s.udp.Close() })()
	g := new(errgroup.Group)
	g.Go(s.connections)
	g.Go(s.datagrams)
	return g.Wait()
}

func (s *Server) answer(network string, to netip.AddrPort) []byte {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	s.log.Info("seen", "source", to.String(), "network", network)
	return []byte(to.String() + "\n")
}

func (s *Server) connections() error {
	for {
		conn, err := s.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			s.log.Warn("a connection was not accepted", "error", err)
			continue
		}
		to, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = conn.Write(s.answer("tcp", to)) // the line fits any send buffer: it does not block
		conn.Close()
	}
}

func (s *Server) datagrams() error {
	buf := make([]byte, 2048)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil || n < question {
			continue
		}
		_, _ = s.udp.WriteToUDPAddrPort(s.answer("udp", from), from)
	}
}
