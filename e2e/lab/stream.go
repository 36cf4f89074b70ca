package lab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// Stream is one TCP connection that lives on: the pod asks and waits for the
// answer (StartStream), or the partner talks and the pod listens (StartListening).
type Stream struct {
	*client
	conn   *net.TCPConn
	source netip.AddrPort
	broken error
}

// StartStream connects from a pod to the TCPPort of an address and asks every so
// often. While an answer is awaited nothing further is asked.
func (l *Lab) StartStream(pod string, to netip.Addr, every time.Duration) (*Stream, error) {
	return l.StartStreamFrom(pod, streamPort(), to, every)
}

// StartStreamFrom is StartStream from a port of the caller's choice, which another
// pod may use, too.
func (l *Lab) StartStreamFrom(pod string, port int, to netip.Addr, every time.Duration) (*Stream, error) {
	s, p, r, err := l.openStream(pod, port, netip.AddrPortFrom(to, TCPPort+l.shift))
	if err != nil {
		return nil, err
	}
	return s, s.run(l, p, every, func(int) { s.askAndWait(r) })
}

// StartListening connects from a pod to the PushPort of an address. Each record is
// an exchange: sent by the partner, answered when it has arrived here.
func (l *Lab) StartListening(pod string, to netip.Addr) (*Stream, error) {
	return l.StartListeningFrom(pod, streamPort(), to)
}

// StartListeningFrom is StartListening from a port of the caller's choice.
func (l *Lab) StartListeningFrom(pod string, port int, to netip.Addr) (*Stream, error) {
	s, _, r, err := l.openStream(pod, port, netip.AddrPortFrom(to, PushPort+l.shift))
	if err != nil {
		return nil, err
	}
	s.rest.Go(func() { s.listen(r) })
	l.onClose(func() error { s.stop(); return nil })
	return s, nil
}

func (l *Lab) openStream(pod string, port int, to netip.AddrPort) (*Stream, *Pod, *bufio.Reader, error) {
	p, err := l.Pod(pod)
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := l.dial(pod, port, to, ConnectTimeout)
	if err != nil {
		return nil, nil, nil, err
	}
	s := &Stream{client: newClient(), conn: c}
	s.hangUp = func() { _ = c.SetDeadline(time.Now()) }
	r := bufio.NewReader(c)
	_ = c.SetReadDeadline(time.Now().Add(ConnectTimeout))
	if s.source, err = readSource(r); err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("stream from %s to %s: %w", pod, to, err), c.Close())
	}
	return s, p, r, c.SetReadDeadline(time.Time{})
}

// streams counts the streams of this process.
var streams atomic.Uint32

// streamPort gives each stream a source port that no other connection of the lab has:
// below the ports that the kernel chooses from. Where two pods use one port towards
// one partner, only replicated state could tell a new holder which is which.
func streamPort() int { return 20000 + int(streams.Add(1)%10000) }

// Dial opens a TCP connection from a host of the lab.
func (l *Lab) Dial(from string, to netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	return l.dial(from, 0, to, timeout)
}

func (l *Lab) dial(from string, port int, to netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	m, err := l.machine(from)
	if err != nil {
		return nil, err
	}
	var c net.Conn
	err = m.Do(func() error {
		d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{Port: port}}
		c, err = d.Dial("tcp4", to.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s from %s: %w", to, from, err)
	}
	return c.(*net.TCPConn), nil
}

// Source is what the partner saw the connection come from.
func (s *Stream) Source() netip.AddrPort { return s.source }

// KeepAlive makes the pod's end speak when it has heard nothing for so long, whole
// seconds. When an answer is lost whose question was acknowledged, only the partner
// has something to send again, and a new holder does not know the connection until
// the pod's side speaks.
func (s *Stream) KeepAlive(every time.Duration) error {
	return s.conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: every, Interval: every, Count: 30})
}

// Local is the pod's end of the connection.
func (s *Stream) Local() netip.AddrPort { return s.conn.LocalAddr().(*net.TCPAddr).AddrPort() }

// Broken is why the connection ended before it was stopped; nil: it was kept.
func (s *Stream) Broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

func (s *Stream) breakOff(err error) {
	select {
	case <-s.quit: // stopping: we hung up ourselves
		return
	default:
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = err
	}
}

// askAndWait polls for the end of the client while it waits: an answer may never
// come.
func (s *Stream) askAndWait(r *bufio.Reader) {
	if s.Broken() != nil {
		return
	}
	n := s.ask(Exchange{Sent: time.Now()})
	question := binary.BigEndian.AppendUint64(nil, uint64(n))
	if _, err := s.conn.Write(question); err != nil {
		s.fail(n, err)
		s.breakOff(err)
		return
	}
	answer, have := make([]byte, len(question)), 0
	for have < len(answer) {
		_ = s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		k, err := r.Read(answer[have:])
		have += k
		select {
		case <-s.quit:
			if err != nil {
				return
			}
		default:
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			s.fail(n, err)
			s.breakOff(err)
			return
		}
	}
	if string(answer) != string(question) {
		s.breakOff(fmt.Errorf("question %d was answered %x", n, answer))
	}
	s.answer(n, time.Now(), s.source, nil)
}

func (s *Stream) listen(r *bufio.Reader) {
	for want := uint64(0); ; want++ {
		var rec pushRecord
		if err := binary.Read(r, binary.BigEndian, &rec); err != nil {
			s.breakOff(err)
			return
		}
		at := time.Now()
		if rec.Seq != want {
			s.breakOff(fmt.Errorf("record %d came where %d was due", rec.Seq, want))
			return
		}
		s.ask(Exchange{Sent: epoch.Add(time.Duration(rec.Nano)), Answered: at, Source: s.source})
	}
}

// Stop ends the connection and gives all the client saw.
func (s *Stream) Stop() Timeline {
	s.stop()
	_ = s.conn.Close()
	return s.report()
}
