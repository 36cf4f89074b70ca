// Package ping finds out how large a packet may be on its way to an address and back.
package ping

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ipHeader = 20
	tries    = 3
	wait     = 400 * time.Millisecond // for an answer
)

// Largest is the largest of the sizes, of whole IP packets that must not be fragmented, the largest
// first, of which an echo came back; 0 when none did. It takes NET_RAW.
func Largest(ctx context.Context, to netip.Addr, sizes ...int) (int, error) {
	conn, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return 0, fmt.Errorf("open a socket for pings: %w", err)
	}
	defer conn.Close()
	raw, err := conn.(*net.IPConn).SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("open a socket for pings: %w", err)
	}
	var refused error
	err = raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	})
	if err = errors.Join(err, refused); err != nil {
		return 0, fmt.Errorf("forbid fragments of pings: %w", err)
	}
	// The largest alone, for it mostly is the answer; then all others at once.
	for _, some := range [][]int{sizes[:1], sizes[1:]} {
		for range tries {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			if back, err := echo(conn, to, uint16(rand.Uint32()), some); back > 0 || err != nil {
				return back, err
			}
		}
	}
	return 0, nil
}

// echo sends a ping of each size and gives the largest that came back, 0 where none did.
func echo(conn net.PacketConn, to netip.Addr, id uint16, sizes []int) (int, error) {
	largest := 0
	for _, size := range sizes {
		msg := make([]byte, size-ipHeader)
		msg[0] = 8 // echo (RFC 792)
		binary.BigEndian.PutUint16(msg[4:], id)
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
		_, err := conn.WriteTo(msg, &net.IPAddr{IP: to.AsSlice()})
		switch {
		case errors.Is(err, unix.EMSGSIZE): // larger than the interface's own
		case err != nil:
			return 0, fmt.Errorf("ping %s with %d bytes: %w", to, size, err)
		default:
			largest = max(largest, size)
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, err
	}
	back := 0
	buf := make([]byte, 1<<16)
	for back < largest {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, unix.EAGAIN) || isTimeout(err) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("hear what %s answers: %w", to, err)
		}
		if n >= 8 && buf[0] == 0 && binary.BigEndian.Uint16(buf[4:]) == id && from.String() == to.String() {
			back = max(back, n+ipHeader)
		}
	}
	return back, nil
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// checksum of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
