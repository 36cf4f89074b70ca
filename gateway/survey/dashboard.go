package survey

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Dialer connects to ports on the loopback of pods.
type Dialer interface {
	Dial(ctx context.Context, namespace, pod string, port int) (io.ReadWriteCloser, error)
}

// Dashboard passes connections on to one gateway's status page, and to another's when
// that one does not answer.
type Dashboard struct {
	Config  Config // Timeout is how long a gateway has to take a connection
	Cluster Installation
	Dialer  Dialer
	// Gateway is the only one to be used, by its pod's or node's name; "": any that is ready.
	Gateway string
	// Moved is told which is used from now on.
	Moved func(Member)

	mu     sync.Mutex
	now    *Member
	failed map[string]bool // pods that did not answer since one did
}

// Pick chooses a gateway, unless one is in use.
func (d *Dashboard) Pick(ctx context.Context) (Member, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now != nil {
		return *d.now, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.Config.Timeout)
	defer cancel()
	members, err := d.Config.members(ctx, d.Cluster)
	if err != nil {
		return Member{}, err
	}
	var names []string
	members = slices.DeleteFunc(members, func(m Member) bool {
		if m.Program == "gateway" {
			names = append(names, m.Pod)
		}
		return m.Program != "gateway" || m.Problem != "" || d.Gateway == "" && !m.Ready || d.Gateway != "" && d.Gateway != m.Pod && d.Gateway != m.Node
	})
	if len(members) == 0 && d.Gateway != "" {
		return Member{}, fmt.Errorf("no gateway that runs is called %s or is on a node of that name: there are %s", d.Gateway, strings.Join(names, ", "))
	}
	if len(members) == 0 {
		return Member{}, fmt.Errorf("no gateway is ready of %s: kubectl sallyport status tells why, and --gateway NAME opens the page of one all the same", strings.Join(names, ", "))
	}
	i := slices.IndexFunc(members, func(m Member) bool { return !d.failed[m.Pod] })
	if i < 0 { // all have failed: begin again
		d.failed, i = nil, 0
	}
	d.now = &members[i]
	if d.Moved != nil {
		d.Moved(members[i])
	}
	return members[i], nil
}

// drop has another gateway picked next.
func (d *Dashboard) drop(m Member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now == nil || d.now.Pod != m.Pod {
		return
	}
	if d.failed == nil {
		d.failed = map[string]bool{}
	}
	d.now, d.failed[m.Pod] = nil, true
}

// Serve passes on what connects to the listener until the context ends. It returns when
// nothing of it runs.
func (d *Dashboard) Serve(ctx context.Context, listener net.Listener) error {
	var passing sync.WaitGroup
	defer passing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("take connections at %s: %w", listener.Addr(), err)
		}
		passing.Go(func() {
			defer conn.Close()
			if err := d.pass(ctx, conn); err != nil && ctx.Err() == nil {
				text := err.Error() + "\n"
				fmt.Fprintf(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
			}
		})
	}
}

// pass one connection on. It is an error when no gateway took it.
func (d *Dashboard) pass(ctx context.Context, conn net.Conn) error {
	m, err := d.Pick(ctx)
	if err != nil {
		return err
	}
	pod, err := d.dial(ctx, m)
	if err != nil {
		d.drop(m)
		return err
	}
	defer pod.Close()
	defer context.AfterFunc(ctx, func() { conn.Close(); pod.Close() })()
	var left atomic.Bool // the reader went first
	var up sync.WaitGroup
	up.Go(func() {
		_, err := io.Copy(pod, conn)
		left.Store(err == nil)
		pod.Close()
	})
	defer up.Wait()
	defer conn.Close()
	if n, _ := io.Copy(conn, pod); n == 0 && !left.Load() {
		d.drop(m) // nothing listens there, or not any more
	}
	return nil
}

// dial bounds how long connecting takes, and not how long the connection lasts.
func (d *Dashboard) dial(ctx context.Context, m Member) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(d.Config.Timeout, func() {
		cancel(fmt.Errorf("gateway %s/%s on %s takes no connection within %v", m.Namespace, m.Pod, m.Node, d.Config.Timeout))
	})
	conn, err := d.Dialer.Dial(ctx, m.Namespace, m.Pod, m.port)
	timer.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	return &dialled{conn, cancel}, nil
}

// dialled ends the request of a connection with it.
type dialled struct {
	io.ReadWriteCloser
	cancel context.CancelCauseFunc
}

func (c *dialled) Close() error {
	defer c.cancel(nil)
	return c.ReadWriteCloser.Close()
}
