package conntrack

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// inbox takes many datagrams of the kernel by one system call, recvmmsg(2), and leaves no
// garbage: each event is a datagram.
type inbox struct {
	headers []received
	from    []unix.RawSockaddrNetlink
	parts   []unix.Iovec
	room    []byte
}

// received is struct mmsghdr.
type received struct {
	header unix.Msghdr
	size   uint32
}

const (
	// inboxes is how many are taken at a time.
	inboxes = 64
	// eventRoom is more than an event takes, some hundred bytes (ctnetlink_nlmsg_size).
	eventRoom = 4 << 10
)

func newInbox() *inbox {
	in := &inbox{
		headers: make([]received, inboxes), from: make([]unix.RawSockaddrNetlink, inboxes),
		parts: make([]unix.Iovec, inboxes), room: make([]byte, inboxes*eventRoom),
	}
	for i := range in.headers {
		in.parts[i].Base = &in.room[i*eventRoom]
		in.parts[i].SetLen(eventRoom)
		h := &in.headers[i].header
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&in.from[i])), &in.parts[i]
		h.SetIovlen(1)
	}
	return in
}

// receive takes what there is, and says how many datagrams; EAGAIN: none.
func (in *inbox) receive(fd int) (int, error) {
	for i := range in.headers {
		in.headers[i].header.Namelen = unix.SizeofSockaddrNetlink
	}
	for {
		n, _, err := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.headers[0])), inboxes, unix.MSG_DONTWAIT, 0, 0)
		switch err {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, err
		}
	}
}

// datagram is the ith of the last call's; empty if it is not the kernel's, for any process
// may send to a netlink socket.
func (in *inbox) datagram(i int) []byte {
	if in.from[i].Pid != 0 {
		return nil
	}
	return in.room[i*eventRoom:][:min(in.headers[i].size, eventRoom)]
}
