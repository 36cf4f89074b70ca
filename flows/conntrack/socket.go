package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// socket is a netlink socket that reads into one buffer again and again.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
}

// openSocket is for requests and their answers.
func openSocket(receiveBuffer int) (*socket, error) {
	fd, err := bind(0, receiveBuffer)
	if err != nil {
		return nil, err
	}
	s := &socket{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 1<<16)}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return s, nil
}

// bind makes a socket that hears what the filter lets pass of the groups, and never waits.
// With a receive buffer beyond net.core.rmem_max it needs CAP_NET_ADMIN over the host, and
// makes do with that where it has it not.
func bind(groups uint32, receiveBuffer int, filter ...bpf.Instruction) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, fmt.Errorf("open a netlink socket: %w", err)
	}
	if len(filter) > 0 {
		if err := attach(fd, filter); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
	if err := bindOwn(fd, groups); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind a netlink socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("enlarge the buffer of a netlink socket: %w", err)
		}
	}
	// An error is told without the message that it answers.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return fd, nil
}

func (s *socket) close() { _ = s.file.Close() }

// receive waits for a datagram of the kernel. It is valid until the next call.
func (s *socket) receive() (b []byte, err error) {
	var inner error
	err = s.raw.Read(func(fd uintptr) bool {
		b, inner = receive(int(fd), s.buf)
		return !errors.Is(inner, unix.EAGAIN)
	})
	if err == nil {
		err = inner
	}
	return b, err
}

// receive takes a datagram of the kernel, which begins buf; EAGAIN: there is none.
func receive(fd int, buf []byte) ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if nl, ok := from.(*unix.SockaddrNetlink); ok && nl.Pid == 0 { // any process may send to a netlink socket
			return buf[:n], nil
		}
	}
}

func (s *socket) send(b []byte) error {
	var inner error
	err := s.raw.Write(func(fd uintptr) bool {
		inner = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return inner != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return inner
}

// header of a netlink message (include/uapi/linux/netlink.h, struct nlmsghdr).
type header struct {
	kind, flags uint16
	seq         uint32
	port        uint32 // in an event, the socket of who asked for it; 0: packets did
}

// messages walks the messages of a datagram.
func messages(b []byte, each func(h header, body []byte) error) error {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return errShort
		}
		h := header{kind: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]), seq: binary.NativeEndian.Uint32(b[8:]), port: binary.NativeEndian.Uint32(b[12:])}
		if err := each(h, b[unix.NLMSG_HDRLEN:size]); err != nil {
			return err
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}
