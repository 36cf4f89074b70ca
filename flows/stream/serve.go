package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/flows"
)

// Server answers standbys that follow VIPs which this member holds.
type Server struct {
	ring *Ring
	now  func() time.Duration
	log  *slog.Logger
	// Lag is called with the time from each batch's oldest change until a standby's
	// kernel had it; nil for nobody.
	Lag func(time.Duration)

	mu    sync.Mutex
	feeds map[string]*Feed
}

// maxStreams is far more than there are VIPs and gateways.
const maxStreams = 2048

// NewServer starts nothing. now is a clock that only grows.
func NewServer(ring *Ring, now func() time.Duration, log *slog.Logger) *Server {
	return &Server{ring: ring, now: now, log: log, feeds: map[string]*Feed{}}
}

// Lead begins to tell of a VIP that this member holds in a term. What is added to the
// Feed from here on, with a snapshot read later, is everything.
//
// have is what this member's kernel has of the holders before it. A standby that has
// more is asked for it first; then standbys end what this member does not have.
func (s *Server) Lead(vip string, term uint64, have flows.Position, kernel Kernel) *Feed {
	f := newFeed(vip, term, have, kernel, s.now, func(lag time.Duration) {
		if s.Lag != nil {
			s.Lag(lag)
		}
	})
	s.Retire(vip)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feeds[vip] = f
	return f
}

// Retire ends the streams of a VIP that this member holds no more.
func (s *Server) Retire(vip string) {
	s.mu.Lock()
	f := s.feeds[vip]
	delete(s.feeds, vip)
	s.mu.Unlock()
	if f != nil {
		f.end()
	}
}

// Run serves until the context ends. It returns when every stream has ended.
func (s *Server) Run(ctx context.Context, at netip.AddrPort) error {
	listener, err := net.Listen("tcp", at.String())
	if err != nil {
		cure := ""
		switch {
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			cure = " (no interface of this host has that address: give one that `ip address` shows as --node-ip)"
		case errors.Is(err, syscall.EADDRINUSE):
			cure = " (another program has the port: give all gateways another --flows-port)"
		}
		return fmt.Errorf("listen for standbys on %s: %w%s", at, err, cure)
	}
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	var streams sync.WaitGroup
	defer streams.Wait()
	room := make(chan struct{}, maxStreams)
	for {
		raw, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close()
			}
			return nil
		}
		if err != nil {
			// Out of descriptors, for one: others are freed meanwhile.
			s.log.Warn("a standby is not heard", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			_ = raw.Close()
			continue
		}
		streams.Go(func() {
			defer func() { <-room }()
			defer raw.Close()
			priority.Ordinary(func() {
				if err := s.serve(ctx, raw); err != nil && ctx.Err() == nil {
					s.log.Debug("a stream to a standby ended", "standby", raw.RemoteAddr().String(), "error", err)
				}
			})
		})
	}
}

// apart is how long after a snapshot was begun another may be: a kernel that has more
// to tell than is read must not be kept busy by that, too.
const apart = time.Second

// stream is one standby's.
type stream struct {
	name   string
	conn   *conn
	feed   *Feed
	cursor *flows.Cursor
}

func (s *Server) serve(ctx context.Context, raw net.Conn) error {
	config, changed := s.ring.current()
	c := &conn{Conn: tls.Server(wrap(raw), config)}
	quiet := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer quiet()
	greeting, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	if err := c.HandshakeContext(greeting); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	hello, err := c.receive(handshake)
	if err != nil {
		return err
	}
	if hello.Kind != flows.Hello {
		return fmt.Errorf("it begins with a message of kind %d", hello.Kind)
	}
	s.mu.Lock()
	f := s.feeds[hello.VIP]
	s.mu.Unlock()
	if f == nil || f.term() < hello.Term {
		return fmt.Errorf("%s follows VIP %s in term %d, which is not held here in that term", hello.Name, hello.VIP, hello.Term)
	}
	c.bytes = &f.bytes
	st := &stream{name: hello.Name, conn: c, feed: f}
	if err := st.adopt(ctx, hello.Have, s.log); err != nil {
		return fmt.Errorf("take over what %s has: %w", hello.Name, err)
	}
	if !st.open() {
		return nil
	}
	defer st.close()
	heard := make(chan error, 1)
	go priority.Ordinary(func() { heard <- st.listen() })
	err = st.talk(ctx, changed)
	_ = raw.Close()
	return errors.Join(err, <-heard)
}

func (st *stream) open() bool {
	f := st.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	st.cursor = f.log.Follow()
	f.streams[st] = true
	return true
}

func (st *stream) close() {
	st.feed.mu.Lock()
	defer st.feed.mu.Unlock()
	st.cursor.Close()
	delete(st.feed.streams, st)
}

// talk sends snapshot and batches until the stream ends.
func (st *stream) talk(ctx context.Context, changed <-chan struct{}) error {
	f := st.feed
	pulse := time.NewTicker(beat)
	defer pulse.Stop()
	var last time.Time // snapshot
	for {
		f.mu.Lock()
		lost, news, ended, term := st.cursor.Lost(), f.news, f.ended, f.log.Term
		batch, have := st.cursor.Next()
		f.mu.Unlock()
		var err error
		switch {
		case ended:
			return nil
		case lost && time.Since(last) < apart:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(apart - time.Since(last)):
			}
		case lost:
			last = time.Now()
			err = st.snapshot()
		case have:
			err = st.conn.sendFrame(batch.Frame)
		default:
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				return errors.New("the gossip keys have changed")
			case <-news:
			case <-pulse.C:
				err = st.conn.send(flows.Message{Kind: flows.Beat, Term: term})
			}
		}
		if err != nil {
			return err
		}
	}
}

// snapshot sends all that the kernel has. What happens meanwhile waits in the log.
func (st *stream) snapshot() error {
	f := st.feed
	f.mu.Lock()
	begin, end := st.cursor.Rewind(), st.cursor.End()
	f.mu.Unlock()
	all, err := f.kernel.Flows()
	if err != nil {
		return err
	}
	if err := st.conn.send(begin); err != nil {
		return err
	}
	f.snapshots.Add(1)
	if err := st.conn.sendFlows(begin.Term, all); err != nil {
		return err
	}
	// Its term may be older than that of what comes next, never newer.
	end.Term = begin.Term
	return st.conn.send(end)
}

// listen takes acknowledgements until the stream ends.
func (st *stream) listen() error {
	f := st.feed
	for {
		m, err := st.conn.receive(silence)
		if err != nil {
			_ = st.conn.NetConn().Close() // talk may be waiting for a standby that hears nothing
			return err
		}
		f.mu.Lock()
		var done []flows.Batch
		switch m.Kind {
		case flows.End:
			st.cursor.Whole(m.Seq)
		case flows.Ack:
			done = st.cursor.Ack(m.Seq)
		}
		now := f.now()
		if !f.ended {
			close(f.heard)
			f.heard = make(chan struct{})
		}
		f.mu.Unlock()
		for _, b := range done {
			f.observe(now - b.At)
		}
	}
}
