package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

const (
	trialTime = time.Second
	warmUp    = 150 * time.Millisecond // TCP's slow start, neighbours, caches
	batch     = 64                     // datagrams a system call
	dialers   = 2                      // one for each processor of the machine the targets are for
	// acceptPort is a server of this program at the partner's.
	acceptPort = 9010
)

func partnerPort(port uint16) netip.AddrPort { return netip.AddrPortFrom(lab.PartnerAddr, port) }

// rate is how much a counter grows in a second, once what feeds it runs.
func rate(counter func() uint64) float64 {
	time.Sleep(warmUp)
	from, began := counter(), time.Now()
	time.Sleep(trialTime)
	return float64(counter()-from) / time.Since(began).Seconds()
}

// Congestion controls of bulk TCP. Hosts have different ones, and with BBR it is the model of the path, by
// which packets are spaced out, that is measured as well.
const (
	cubic = "cubic"
	bbr   = "bbr"
)

// bulk is one TCP connection that sends as much as it can, in bits a second at the
// partner's.
func bulk(w *world, from, congestion string) (float64, error) {
	c, err := w.Dial(from, partnerPort(lab.DiscardPort), patience)
	if err != nil {
		return 0, err
	}
	if err := controlled(c, congestion); err != nil {
		return 0, err
	}
	var sending sync.WaitGroup
	var broke error
	sending.Go(func() {
		buf := make([]byte, 256<<10)
		for broke == nil {
			_, broke = c.Write(buf)
		}
	})
	bits := 8 * rate(w.Partner.DiscardedBytes.Load)
	_ = c.SetWriteDeadline(time.Now())
	sending.Wait()
	c.Close()
	if !errors.Is(broke, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("bulk from %s: %w", from, broke)
	}
	return bits, nil
}

func controlled(c *net.TCPConn, congestion string) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("choose the congestion control: %w", err)
	}
	ctlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
	})
	if err = errors.Join(ctlErr, err); err != nil {
		return fmt.Errorf("choose the congestion control %s: %w", congestion, err)
	}
	return nil
}

// datagrams sends 64 bytes at a time as fast as it can, and gives the packets a second
// that arrived.
func datagrams(w *world, from string) (float64, error) {
	ns, err := w.Namespace(from)
	if err != nil {
		return 0, err
	}
	var c *net.UDPConn
	err = ns.Do(func() error {
		c, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(partnerPort(lab.DiscardPort)))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("send datagrams from %s: %w", from, err)
	}
	messages := make([]ipv4.Message, batch)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, 64)}
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		for p := ipv4.NewPacketConn(c); ; {
			// An ICMP error of an earlier datagram is reported once and then forgotten.
			if _, err := p.WriteBatch(messages, 0); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	})
	packets := rate(w.Partner.DiscardedPackets.Load)
	c.Close()
	sending.Wait()
	return packets, nil
}

// connections opens one TCP connection after another and gives how many a second
// were established.
func connections(w *world, from string) (float64, error) {
	hangUp, err := acceptAll(w)
	if err != nil {
		return 0, err
	}
	defer hangUp()
	ns, err := w.Namespace(from)
	if err != nil {
		return 0, err
	}
	var dialing sync.WaitGroup
	var established atomic.Uint64
	var enough atomic.Bool
	failures := make(chan error, dialers)
	for range dialers {
		dialing.Go(func() {
			failures <- ns.Do(func() error {
				for !enough.Load() {
					if err := connectOnce(partnerPort(acceptPort)); err != nil {
						return err
					}
					established.Add(1)
				}
				return nil
			})
		})
	}
	perSecond := rate(established.Load)
	enough.Store(true)
	dialing.Wait()
	close(failures)
	var errs []error
	for err := range failures {
		errs = append(errs, err)
	}
	return perSecond, errors.Join(errs...)
}

// connectOnce ends the connection with a reset, which leaves no TIME_WAIT.
func connectOnce(to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	late := unix.NsecToTimeval(int64(5 * time.Second)) // of connect too (socket(7))
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &late),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	for again := true; err == nil && again; {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
		// The runtime's signals interrupt a connect, which then goes on by itself.
		if again = errors.Is(err, unix.EINTR) || errors.Is(err, unix.EALREADY); again {
			err = nil
		} else if errors.Is(err, unix.EISCONN) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("connect to %s: %w", to, err)
	}
	return nil
}

// acceptAll is a server that takes every connection and lets it go.
func acceptAll(w *world) (hangUp func(), err error) {
	ns, err := w.Namespace(lab.PartnerHost)
	if err != nil {
		return nil, err
	}
	fd := -1
	err = ns.Do(func() error {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.Bind(fd, &unix.SockaddrInet4{Port: acceptPort}), unix.Listen(fd, 4096))
	})
	if err != nil {
		return nil, fmt.Errorf("listen at the partner's: %w", err)
	}
	var accepting sync.WaitGroup
	var done atomic.Bool
	accepting.Go(func() {
		for !done.Load() {
			if c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err == nil {
				unix.Close(c)
			}
		}
	})
	return func() {
		done.Store(true)
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // wakes the accept
		accepting.Wait()
		unix.Close(fd)
	}, nil
}

// requests asks over one HTTP connection, one request after another, and gives the
// seconds that each took.
func requests(ctx context.Context, w *world, from string) (trials, error) {
	c, err := w.Dial(from, partnerPort(lab.HTTPPort), patience)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	question := []byte("GET / HTTP/1.1\r\nHost: partner\r\n\r\n")
	var took trials
	r := bufio.NewReader(c)
	for began := time.Now(); time.Since(began) < warmUp+trialTime && ctx.Err() == nil; {
		asked := time.Now()
		if _, err := c.Write(question); err != nil {
			return nil, fmt.Errorf("request from %s: %w", from, err)
		}
		answer, err := http.ReadResponse(r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("answer to %s: %w", from, err)
		}
		if asked.Sub(began) > warmUp {
			took.add(time.Since(asked))
		}
	}
	return took, nil
}
