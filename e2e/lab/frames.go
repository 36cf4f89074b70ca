package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/netns"
)

// openFrames opens a packet socket on an interface of a namespace for frames of
// one EtherType, or all (unix.ETH_P_ALL). It sees what comes in, whomever it is
// for, and what goes out (packet(7)).
func openFrames(ns *netns.NS, ifname string, ethertype uint16) (*os.File, error) {
	var f *os.File
	err := ns.Do(func() error {
		link, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		proto := ethertype>>8 | ethertype<<8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(proto))
		if err != nil {
			return err
		}
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
				&unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Index}),
		)
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		f = os.NewFile(uintptr(fd), "packet "+ifname)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on %s in %s: %w", ifname, ns.Name, err)
	}
	return f, nil
}

// readFrames hands over every frame until the socket's read deadline is set or it
// is closed; what has arrived by then is handed over too.
func readFrames(f *os.File, each func(at time.Time, frame []byte)) {
	buf := make([]byte, 65535)
	for {
		n, err := f.Read(buf)
		switch {
		case err == nil:
			each(time.Now(), buf[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
			drain(f, buf, each)
			return
		case errors.Is(err, os.ErrClosed):
			return
		}
		// Any other error says that the interface went down; it may come up again.
	}
}

func drain(f *os.File, buf []byte, each func(at time.Time, frame []byte)) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			n, err := unix.Read(int(fd), buf)
			if err != nil {
				return
			}
			each(time.Now(), buf[:n])
		}
	})
}
