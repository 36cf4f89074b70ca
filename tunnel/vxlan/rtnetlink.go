package vxlan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// conn is an rtnetlink socket of the network namespace it was dialled in. It
// exists beside vishvananda/netlink because thousands of routes have to go in few
// system calls, and dumps be filtered by the kernel.
type conn struct {
	fd     int
	seq    uint32
	buf    []byte
	writes int // messages sent that change something
}

// request is one message that changes something.
type request struct {
	typ   uint16
	flags uint16
	body  []byte
	what  func() string // for the error: "add route …"
	// gone are errors that mean the work was done already.
	gone []unix.Errno
	// vague is a removal that may hit another object than the one listed.
	vague bool
}

// answerWait bounds the wait for an answer, which the kernel has ready when
// sendto returns, or makes while the socket is read.
const answerWait = 10 // seconds

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerWait}),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	if err == nil {
		if err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); err != nil {
			err = fmt.Errorf("ask for strict checking, which needs Linux 4.20 or newer: %w", err)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up rtnetlink socket: %w", err), unix.Close(fd))
	}
	return &conn{fd: fd, buf: make([]byte, 64<<10)}, nil
}

func (c *conn) close() error { return unix.Close(c.fd) }

// batch is the number of messages in one sendto: errors come back one datagram
// each and must all fit the receive buffer.
const batch = 128

// named is the number of refusals that an error spells out: thousands in one log
// line help nobody.
const named = 10

// change sends the requests in order and goes on after one that the kernel
// refuses. Only the last of a batch asks for an acknowledgement; refusals are
// answered in any case.
func (c *conn) change(ctx context.Context, reqs []request) error {
	var errs []error
	for part := range slices.Chunk(reqs, batch) {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		var out bytes.Buffer
		first := c.seq + 1
		for i, r := range part {
			flags := r.flags | unix.NLM_F_REQUEST
			if i == len(part)-1 {
				flags |= unix.NLM_F_ACK
			}
			c.put(&out, r.typ, flags, r.body)
		}
		c.writes += len(part)
		if err := c.send(out.Bytes()); err != nil {
			return errors.Join(append(errs, fmt.Errorf("%s: %w", part[0].what(), err))...)
		}
		for last := false; !last; {
			err := c.receive(func(h header, body []byte) {
				if h.typ != unix.NLMSG_ERROR || h.seq-first >= uint32(len(part)) {
					return
				}
				r := part[h.seq-first]
				last = last || h.seq == c.seq
				if err := refusal(h, body); err != nil && !slices.ContainsFunc(r.gone, func(e unix.Errno) bool { return errors.Is(err, e) }) {
					errs = append(errs, fmt.Errorf("%s: %w", r.what(), err))
				}
			})
			if err != nil {
				return errors.Join(append(errs, err)...)
			}
		}
	}
	if len(errs) > named {
		errs = append(errs[:named:named], fmt.Errorf("and %d more", len(errs)-named))
	}
	return errors.Join(errs...)
}

// errInterrupted says that what was being listed changed meanwhile.
var errInterrupted = errors.New("it kept changing while it was listed")

// dump calls each for every message of a listing. What each is given is valid
// during the call only.
func (c *conn) dump(typ uint16, body []byte, reset func(), each func(body []byte)) error {
	for range 8 {
		reset()
		interrupted, done := false, false
		var failure error
		if err := c.ask(typ, unix.NLM_F_DUMP, body); err != nil {
			return err
		}
		for !done {
			err := c.receive(func(h header, body []byte) {
				if h.seq != c.seq || done {
					return
				}
				interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
				switch h.typ {
				case unix.NLMSG_DONE, unix.NLMSG_ERROR:
					done, failure = true, refusal(h, body)
				default:
					each(body)
				}
			})
			if err != nil {
				return err
			}
		}
		if failure != nil || !interrupted {
			return failure
		}
	}
	return errInterrupted
}

// get gives the one message that answers a question.
func (c *conn) get(typ uint16, body []byte) ([]byte, error) {
	if err := c.ask(typ, 0, body); err != nil {
		return nil, err
	}
	var answer []byte
	for answer == nil {
		var failure error
		err := c.receive(func(h header, body []byte) {
			switch {
			case h.seq != c.seq:
			case h.typ == unix.NLMSG_ERROR:
				failure = refusal(h, body)
			default:
				answer = bytes.Clone(body)
			}
		})
		if err = errors.Join(err, failure); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

func (c *conn) ask(typ, flags uint16, body []byte) error {
	var out bytes.Buffer
	c.put(&out, typ, flags|unix.NLM_F_REQUEST, body)
	return c.send(out.Bytes())
}

// header is struct nlmsghdr without the length.
type header struct {
	typ, flags uint16
	seq, port  uint32
}

func (c *conn) put(out *bytes.Buffer, typ, flags uint16, body []byte) {
	c.seq++
	h := make([]byte, unix.SizeofNlMsghdr)
	binary.NativeEndian.PutUint32(h, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(h[4:], typ)
	binary.NativeEndian.PutUint16(h[6:], flags)
	binary.NativeEndian.PutUint32(h[8:], c.seq)
	out.Write(h)
	out.Write(body)
	out.Write(make([]byte, -len(body)&3))
}

func (c *conn) send(b []byte) error {
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return err
		}
	}
}

// receive reads one datagram, which may hold many messages.
func (c *conn) receive(each func(h header, body []byte)) error {
	err := c.read(0, each)
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("the kernel did not answer within %d s", answerWait)
	}
	return err
}

// read is receive with recvmsg's flags. The error is EAGAIN where nothing is there.
func (c *conn) read(with int, each func(h header, body []byte)) error {
	n, _, flags, from, err := unix.Recvmsg(c.fd, c.buf, nil, with)
	for err == unix.EINTR { // the runtime's preemption signals, which do not restart a call with a timeout
		n, _, flags, from, err = unix.Recvmsg(c.fd, c.buf, nil, with)
	}
	sender, _ := from.(*unix.SockaddrNetlink)
	switch {
	case err != nil:
		return fmt.Errorf("read the kernel's answer: %w", err)
	case flags&unix.MSG_TRUNC != 0:
		return fmt.Errorf("the kernel's answer is larger than %d bytes", len(c.buf))
	case sender != nil && sender.Pid != 0: // any process may send to a netlink socket
		return nil
	}
	for b := c.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return fmt.Errorf("the kernel's answer has a message of %d bytes in %d", size, len(b))
		}
		each(header{
			typ: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
			seq: binary.NativeEndian.Uint32(b[8:]), port: binary.NativeEndian.Uint32(b[12:]),
		}, b[unix.SizeofNlMsghdr:size])
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

// refusal decodes NLMSG_ERROR and NLMSG_DONE, with the kernel's own words where
// it gives any (NLMSGERR_ATTR_MSG).
func refusal(h header, body []byte) error {
	if len(body) < 4 {
		return nil
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
	if errno == 0 {
		return nil
	}
	rest := body[4:]
	if h.typ == unix.NLMSG_ERROR && len(rest) >= unix.SizeofNlMsghdr {
		rest = rest[unix.SizeofNlMsghdr:]
	}
	var said string
	if h.flags&unix.NLM_F_ACK_TLVS != 0 {
		for typ, data := range attributes(rest) {
			if typ == unix.NLMSGERR_ATTR_MSG {
				said = unix.ByteSliceToString(data)
			}
		}
	}
	if said != "" {
		return fmt.Errorf("%w: %s", errno, said)
	}
	return errno
}
