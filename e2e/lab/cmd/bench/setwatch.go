package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/steer"
)

const (
	agentTable   = steer.TableName
	gatewayTable = snat.TableName
)

// setWatch listens to what the kernel announces of nftables on a host: after the
// commit, so that an element that is announced works.
type setWatch struct {
	fd   int
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	awaited map[[4]byte]*sighting
}

// sighting is when an address was first seen in each table's sets.
type sighting struct {
	addr [4]byte
	at   map[string]chan time.Time
}

// announcements that may wait: a few thousand elements at once are megabytes.
const announcements = 64 << 20

func watchSets(w *world, host string) (*setWatch, error) {
	ns, err := w.Namespace(host)
	if err != nil {
		return nil, err
	}
	s := &setWatch{awaited: map[[4]byte]*sighting{}}
	err = ns.Do(func() error {
		if s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER); err != nil {
			return err
		}
		tick := unix.NsecToTimeval(int64(200 * time.Millisecond)) // to notice the end
		if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, announcements); err != nil {
			return err
		}
		return unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	})
	if err != nil {
		return nil, fmt.Errorf("listen to nftables on %s: %w", host, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.done.Go(func() { s.listen(ctx) })
	s.stop = stop
	return s, nil
}

func (s *setWatch) close() {
	s.stop()
	s.done.Wait()
	unix.Close(s.fd)
}

func (s *setWatch) expect(addr netip.Addr) *sighting {
	e := &sighting{addr: addr.As4(), at: map[string]chan time.Time{
		agentTable: make(chan time.Time, 1), gatewayTable: make(chan time.Time, 1),
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited[e.addr] = e
	return e
}

func (s *setWatch) listen(ctx context.Context) {
	buf := make([]byte, 1<<20)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if err != nil {
			continue // nothing came for a while, or more than the socket holds
		}
		s.look(buf[:n], time.Now())
	}
}

// look searches whole messages for the addresses: no other value is in their range, and
// netlink aligns all values to 4 bytes.
func (s *setWatch) look(b []byte, at time.Time) {
	var tables []string
	for _, table := range []string{agentTable, gatewayTable} {
		if bytes.Contains(b, append([]byte(table), 0)) {
			tables = append(tables, table)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; len(b) >= 4; b = b[4:] {
		e := s.awaited[[4]byte(b)]
		if e == nil {
			continue
		}
		for _, table := range tables {
			select {
			case e.at[table] <- at:
			default:
			}
		}
	}
}

// in waits for the table's announcement.
func (e *sighting) in(ctx context.Context, table string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case at := <-e.at[table]:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("wait for %s in table %s: %w", netip.AddrFrom4(e.addr), table, ctx.Err())
	}
}
