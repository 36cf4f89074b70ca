package stream

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/flows"
)

const (
	// handshake is how long the other end may take to prove that it has a key.
	handshake = 5 * time.Second
	// beat is how often a holder says that it is there.
	beat = time.Second
	// silence of the other end, after which the stream is given up. A process that is
	// stopped for less goes on where it was.
	silence = 15 * time.Second
)

// conn frames messages: each has its length in four bytes before it.
type conn struct {
	*tls.Conn
	in, out []byte
	decoder flows.Decoder
	bytes   *atomic.Uint64 // both ways; nil: not counted
}

func (c *conn) send(m flows.Message) error { return c.sendFrame(flows.Encode(m)) }

// sendFrame waits while the other end does not read, and no longer than silence.
func (c *conn) sendFrame(frame []byte) error {
	c.out = append(binary.BigEndian.AppendUint32(c.out[:0], uint32(len(frame))), frame...)
	if err := c.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	n, err := c.Write(c.out)
	if c.bytes != nil {
		c.bytes.Add(uint64(n))
	}
	return err
}

// receive gives a message that is valid until the next one.
func (c *conn) receive(within time.Duration) (flows.Message, error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return flows.Message{}, err
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return flows.Message{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > flows.MaxFrame {
		return flows.Message{}, fmt.Errorf("a message of %d bytes is announced, the most is %d", size, flows.MaxFrame)
	}
	if cap(c.in) < int(size) {
		c.in = make([]byte, size)
	}
	c.in = c.in[:size]
	if c.bytes != nil {
		c.bytes.Add(uint64(len(head)) + uint64(size))
	}
	if _, err := io.ReadFull(c, c.in); err != nil {
		return flows.Message{}, err
	}
	return c.decoder.Decode(c.in)
}

// wrap limits what the kernel buffers for an end that does not read: it is to be
// noticed here.
func wrap(raw net.Conn) net.Conn {
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(256 << 10)
	}
	return raw
}
