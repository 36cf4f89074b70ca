package lab

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ConnectTimeout of the clients is long enough for the second SYN retransmission, at
// 3 s.
const ConnectTimeout = 5 * time.Second

// Connects makes a new TCP connection each time: an exchange is answered when the
// partner's greeting has come.
type Connects struct {
	*client
	cancel context.CancelFunc
	ctx    context.Context
	target netip.AddrPort
}

// StartConnects starts such a client in a pod, towards the TCPPort of an address.
func (l *Lab) StartConnects(pod string, to netip.Addr, every time.Duration) (*Connects, error) {
	return l.StartConnectsTo(pod, netip.AddrPortFrom(to, TCPPort+l.shift), every)
}

// StartConnectsTo is StartConnects towards any port.
func (l *Lab) StartConnectsTo(pod string, to netip.AddrPort, every time.Duration) (*Connects, error) {
	p, err := l.Pod(pod)
	if err != nil {
		return nil, err
	}
	c := &Connects{client: newClient(), target: to}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.hangUp = c.cancel
	if err := c.run(l, p, every, c.connect); err != nil {
		return nil, fmt.Errorf("start connects in %s: %w", pod, err)
	}
	return c, nil
}

// connect sends the SYN from here, the pod's namespace, and leaves the waiting to
// the runtime's poller: thousands can be under way in a gap, without a thread each.
func (c *Connects) connect(int) {
	n := c.ask(Exchange{Sent: time.Now()})
	f, err := beginConnect(c.target)
	if err != nil {
		c.fail(n, err)
		return
	}
	c.rest.Go(func() {
		defer f.Close()
		end := context.AfterFunc(c.ctx, func() { _ = f.SetDeadline(time.Now()) })
		defer end()
		source, err := finishConnect(f)
		if err != nil {
			c.fail(n, err)
			return
		}
		c.answer(n, time.Now(), source, nil)
	})
}

// beginConnect must be called in the namespace the connection is to come from.
func beginConnect(to netip.AddrPort) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	// Closing with a reset keeps the ports of 200 connections a second from TIME_WAIT.
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}
	if err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	return os.NewFile(uintptr(fd), "tcp "+to.String()), nil
}

// finishConnect waits for the connection and reads the greeting.
func finishConnect(f *os.File) (netip.AddrPort, error) {
	if err := f.SetDeadline(time.Now().Add(ConnectTimeout)); err != nil {
		return netip.AddrPort{}, fmt.Errorf("connect: %w", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("connect: %w", err)
	}
	var refused error
	err = raw.Write(func(fd uintptr) bool {
		if code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			refused = unix.Errno(code)
			return true
		}
		_, err := unix.Getpeername(int(fd))
		return err == nil
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("connect: %w", err)
	}
	return readSource(bufio.NewReaderSize(f, 64))
}
