package kube

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// webSocket is the client's end of a connection after its handshake (RFC 6455): each
// Write is one binary message, each message comes by one call of next. The API
// server's ways into pods are asked for with it, and a client library for that little
// would bring two more modules into every gateway.
type webSocket struct {
	conn io.ReadWriteCloser
	in   *bufio.Reader
}

func newWebSocket(conn io.ReadWriteCloser) *webSocket {
	return &webSocket{conn: conn, in: bufio.NewReader(conn)}
}

// Opcodes of frames.
const (
	opContinue = 0
	opBinary   = 2
	opClose    = 8
	opPing     = 9
	opPong     = 10
)

// longestMessage is more than the streams that are read by it send at once (32 KiB).
const longestMessage = 1 << 20

// Write sends one binary message.
func (w *webSocket) Write(message []byte) (int, error) {
	if err := w.send(opBinary, message); err != nil {
		return 0, err
	}
	return len(message), nil
}

// Close ends the connection without waiting for the other side.
func (w *webSocket) Close() error {
	return errors.Join(w.send(opClose, nil), w.conn.Close())
}

// send one frame. Clients must mask theirs.
func (w *webSocket) send(op byte, payload []byte) error {
	const fin, masked = 0x80, 0x80
	frame := []byte{fin | op}
	switch n := len(payload); {
	case n < 126:
		frame = append(frame, masked|byte(n))
	case n < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, masked|126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, masked|127), uint64(n))
	}
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // never fails
	frame = append(frame, mask[:]...)
	for i, b := range payload {
		frame = append(frame, b^mask[i%4])
	}
	_, err := w.conn.Write(frame)
	return err
}

// next message; io.EOF when the other side has closed.
func (w *webSocket) next() ([]byte, error) {
	var message []byte
	for {
		op, fin, payload, err := w.frame()
		if err != nil {
			return nil, err
		}
		switch op {
		case opClose:
			return nil, io.EOF
		case opPing:
			if err := w.send(opPong, payload); err != nil {
				return nil, err
			}
			continue
		case opPong:
			continue
		}
		if message = append(message, payload...); len(message) > longestMessage {
			return nil, fmt.Errorf("websocket message of more than %d bytes", longestMessage)
		}
		if fin {
			return message, nil
		}
	}
}

func (w *webSocket) frame() (op byte, fin bool, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return 0, false, nil, err
	}
	size := uint64(head[1] & 0x7f)
	switch size {
	case 126:
		var long [2]byte
		_, err = io.ReadFull(w.in, long[:])
		size = uint64(binary.BigEndian.Uint16(long[:]))
	case 127:
		var long [8]byte
		_, err = io.ReadFull(w.in, long[:])
		size = binary.BigEndian.Uint64(long[:])
	}
	switch {
	case err != nil:
		return 0, false, nil, fmt.Errorf("read the length of a websocket frame: %w", err)
	case head[0]&0x70 != 0 || head[1]&0x80 != 0:
		return 0, false, nil, errors.New("websocket frame with an extension or a mask, which a server must not send")
	case size > longestMessage:
		return 0, false, nil, fmt.Errorf("websocket frame of %d bytes", size)
	}
	payload = make([]byte, size)
	if _, err := io.ReadFull(w.in, payload); err != nil {
		return 0, false, nil, fmt.Errorf("read a websocket frame: %w", err)
	}
	return head[0] & 0xf, head[0]&0x80 != 0, payload, nil
}
