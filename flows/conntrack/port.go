package conntrack

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The sockets of one process have netlink ports of one range, so that a Listener knows what
// its own process asked for: an event has the port of the socket that did.
const (
	ownPorts = 1 << 6 // sockets at the same time; further ones are not known as its own
	ownRange = 3 << 30
)

var lastPort atomic.Uint32

func firstPort() uint32 { return ownRange | uint32(os.Getpid())*ownPorts }

func isOwn(port uint32) bool { return port&^(ownPorts-1) == firstPort() }

// bindOwn binds a netlink socket to a port of the range that is free, or to any.
func bindOwn(fd int, groups uint32) error {
	for range ownPorts {
		err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups, Pid: firstPort() | lastPort.Add(1)%ownPorts})
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
}

// ifOwn goes on with the next instruction if this process asked for what the event tells, and
// otherwise skips as many.
func ifOwn(skip uint8) []bpf.Instruction {
	read := func(port uint32) uint32 { // as the filter reads what is in the host's order
		return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port))
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^read(ownPorts - 1)},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: read(firstPort()), SkipTrue: skip},
	}
}
