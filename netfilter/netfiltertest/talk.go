package netfiltertest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// answer is what a server says: which of the three it is and whom it saw.
type answer struct {
	way  string
	seen netip.AddrPort
}

// Patience for an answer that must come, and for one that must not.
const (
	patience = 3 * time.Second
	silence  = 250 * time.Millisecond
)

// serve starts the server of one way on all addresses and ports, UDP and TCP.
func (l *lab) serve(way string) {
	l.t.Helper()
	var closers []interface{ Close() error }
	err := l.far[way].Do(func() error {
		for _, addr := range append([]string{server6}, servers...) {
			for _, port := range ports {
				at := net.JoinHostPort(addr, fmt.Sprint(port))
				pc, err := net.ListenPacket("udp", at)
				if err != nil {
					return err
				}
				ln, err := net.Listen("tcp", at)
				if err != nil {
					return err
				}
				closers = append(closers, pc, ln)
				go answerUDP(pc, way)
				go answerTCP(ln, way)
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		for _, c := range closers {
			_ = c.Close()
		}
	})
}

func answerUDP(pc net.PacketConn, way string) {
	buf := make([]byte, 2048)
	for {
		_, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(packetWriter{pc, from}, "%s %s\n", way, from)
	}
}

type packetWriter struct {
	net.PacketConn
	to net.Addr
}

func (w packetWriter) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }

// answerTCP answers each message with who it is, whom it sees and the MSS it may
// send, which is what was in the SYN.
func answerTCP(ln net.Listener, way string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 64)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				_, _ = fmt.Fprintf(c, "%s %s %d\n", way, c.RemoteAddr(), mss(c))
			}
		}()
	}
}

func mss(c net.Conn) (size int) {
	if raw, err := c.(*net.TCPConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { size, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
	}
	return size
}

// talk is one connection of a pod.
type talk struct {
	l    *lab
	conn net.Conn
	what string
}

// dial opens a connection from a pod's address; sport 0 is any.
func (l *lab) dial(network, src string, sport int, dst string) (*talk, error) {
	t := &talk{l: l, what: fmt.Sprintf("%s %s to %s", network, src, dst)}
	err := l.pod.Do(func() (err error) {
		d := net.Dialer{Timeout: patience}
		ip := net.ParseIP(src)
		if d.LocalAddr = net.Addr(&net.UDPAddr{IP: ip, Port: sport}); network == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: ip, Port: sport}
		}
		t.conn, err = d.Dial(network, dst)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.what, err)
	}
	l.t.Cleanup(func() { _ = t.conn.Close() })
	return t, nil
}

// ask sends one message and waits for its answer.
func (t *talk) ask(wait time.Duration) (answer, int, error) {
	_ = t.conn.SetDeadline(time.Now().Add(wait))
	if _, err := t.conn.Write([]byte("?")); err != nil {
		return answer{}, 0, fmt.Errorf("%s: %w", t.what, err)
	}
	buf := make([]byte, 128)
	n, err := t.conn.Read(buf)
	if err != nil {
		return answer{}, 0, fmt.Errorf("%s: %w", t.what, err)
	}
	field := strings.Fields(string(buf[:n]))
	mss := 0
	if len(field) == 3 {
		_, _ = fmt.Sscan(field[2], &mss)
	}
	seen, err := netip.ParseAddrPort(field[1])
	return answer{way: field[0], seen: seen}, mss, err
}

// must asks and insists on an answer by the given way.
func (t *talk) must(way string) answer {
	t.l.t.Helper()
	got, _, err := t.ask(patience)
	if err != nil {
		t.l.t.Fatal(err)
	}
	if got.way != way {
		t.l.t.Errorf("%s went by %s, want %s", t.what, got.way, way)
	}
	return got
}

// via opens a connection and insists that it goes the given way; "" is nowhere.
func (l *lab) via(way, network, src, dst string) answer {
	l.t.Helper()
	t, err := l.dial(network, src, 0, dst)
	if err != nil {
		l.t.Fatal(err)
	}
	defer t.conn.Close()
	if way != "" {
		return t.must(way)
	}
	if got, _, err := t.ask(silence); err == nil {
		l.t.Errorf("%s went by %s, want it dropped", t.what, got.way)
	} else if !errors.Is(err, os.ErrDeadlineExceeded) {
		l.t.Errorf("%s: %v, want silence", t.what, err)
	}
	return answer{}
}

// ping insists on the answer to an ICMP echo request (RFC 792).
func (l *lab) ping(src, dst string) {
	l.t.Helper()
	err := l.pod.Do(func() error {
		d := net.Dialer{LocalAddr: &net.IPAddr{IP: net.ParseIP(src)}}
		c, err := d.Dial("ip4:icmp", dst)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		// Type 8, code 0, identifier 0x1234, sequence 1: the checksum is known.
		if _, err := c.Write([]byte{8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1}); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 64))
		return err
	})
	if err != nil {
		l.t.Fatalf("ping %s from %s: %v", dst, src, err)
	}
}
