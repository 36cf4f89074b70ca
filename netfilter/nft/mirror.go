package nft

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// mirror is a table as the kernel has it. Between two looks it follows what the kernel
// announces of elements, whoever changed them: to list thousands for one that is new
// takes longer than all the rest. It is believed only when it is of the kernel's own
// generation of the rules; after anything else, announcements that were lost included,
// the table is read whole.
type mirror struct {
	of    family
	table string
	room  int // of the socket; other programs' changes wait there too

	heard      *os.File          // nil: nobody listens
	namespace  uint64            // that it listens in
	have       *present          // nil: to be read
	news       map[string][]said // of the sets of have, not yet in it
	generation uint32            // of the rules that have is of
}

// announcements of some ten thousand elements wait in the kernel between two looks.
const announcements = 4 << 20

// look gives the table as it is now, which is the mirror's: to be read, and only until
// the next look.
func (m *mirror) look() (*present, error) {
	if err := m.listen(); err != nil {
		return nil, err
	}
	if m.have != nil {
		m.hear()
		now, err := generation()
		if err != nil {
			return nil, err
		}
		if m.have != nil && m.generation == now {
			return m.have, nil
		}
	}
	return m.read()
}

// read reads the table whole. What is announced of a time before, and heard only later,
// is of another generation until all of it was heard.
func (m *mirror) read() (have *present, err error) {
	m.have = nil
	m.hear()
	if err := m.listen(); err != nil {
		return nil, err
	}
	have, m.generation, err = read(m.of, m.table)
	m.have = have
	return have, err
}

// listen subscribes, in the network namespace of the calling thread.
func (m *mirror) listen() error {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return fmt.Errorf("find the network namespace: %w", err)
	}
	if m.heard != nil && m.namespace == ns.Ino {
		return nil
	}
	m.deaf()
	// Blocking, so that the runtime's poller does not know of it: the kernel would wake it
	// at every announcement.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	heard := os.NewFile(uintptr(fd), "nftables")
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, m.room) != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, m.room)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	}
	if err != nil {
		_ = heard.Close()
		return fmt.Errorf("subscribe to changes of the rules: %w", err)
	}
	m.heard, m.namespace = heard, ns.Ino
	return nil
}

// deaf ends the subscription, and with it what is known.
func (m *mirror) deaf() {
	if m.heard != nil {
		_ = m.heard.Close()
	}
	m.heard, m.have = nil, nil
}

// hear takes in what has been announced. A socket that lost something is given up: what
// else it loses until it is empty it does not tell (net/netlink/af_netlink.c, netlink_overrun).
func (m *mirror) hear() {
	defer m.settle()
	buf := make([]byte, 64<<10)
	for m.heard != nil {
		n, from, err := unix.Recvfrom(int(m.heard.Fd()), buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		sender, _ := from.(*unix.SockaddrNetlink)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil || n > len(buf):
			m.deaf()
			return
		case sender != nil && sender.Pid != 0: // any process may send to a netlink socket
		default:
			m.take(buf[:n])
		}
	}
}

// settle brings into have what was heard.
func (m *mirror) settle() {
	if m.have != nil {
		for set, all := range m.news {
			m.have.elements[set] = m.have.elements[set].after(all)
		}
	}
	m.news = nil
}

// take one datagram of announcements.
func (m *mirror) take(datagram []byte) {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		m.deaf()
		return
	}
	for _, msg := range messages {
		if m.have == nil {
			return
		}
		kind := msg.Header.Type
		if kind>>8 != unix.NFNL_SUBSYS_NFTABLES || len(msg.Data) < nl.SizeofNfgenmsg {
			continue
		}
		if err := m.announced(int(kind&0xff), family(msg.Data[0]), string(msg.Data[nl.SizeofNfgenmsg:])); err != nil {
			m.have = nil
		}
	}
}

// announced is one change. In every message but that of a generation the first attribute
// is the name of the table (include/uapi/linux/netfilter/nf_tables.h).
func (m *mirror) announced(message int, f family, attrs string) error {
	const tableName = 1
	var set, list string
	ours := true
	if err := each(attrs, func(kind uint16, value string) error {
		switch {
		case message == unix.NFT_MSG_NEWGEN:
			if kind == unix.NFTA_GEN_ID {
				m.generation = be32(value)
			}
		case kind == tableName:
			ours = f == m.of && text(value) == m.table
		case kind == unix.NFTA_SET_ELEM_LIST_SET:
			set = text(value)
		case kind == unix.NFTA_SET_ELEM_LIST_ELEMENTS:
			list = value
		}
		return nil
	}); err != nil || !ours || message == unix.NFT_MSG_NEWGEN {
		return err
	}
	if _, known := m.have.elements[set]; !known || message != unix.NFT_MSG_NEWSETELEM && message != unix.NFT_MSG_DELSETELEM {
		m.have = nil
		return nil
	}
	return each(list, func(_ uint16, e string) error {
		is, err := elementOf(e)
		if m.news == nil {
			m.news = map[string][]said{}
		}
		m.news[set] = append(m.news[set], said{is, message == unix.NFT_MSG_DELSETELEM})
		return err
	})
}
