package gossip

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/e2e/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lan is a bridge with hosts at 10.55.0.1, .2, ….
type lan struct {
	t     *testing.T
	wire  *netns.NS
	hosts []*netns.NS
}

func newLAN(t *testing.T, hosts int) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	l := &lan{t: t, wire: newNS(t, "spg-lan")}
	l.run(l.wire, "ip", "link", "add", "br0", "type", "bridge")
	l.run(l.wire, "ip", "link", "set", "br0", "up")
	for i := range hosts {
		ns := newNS(t, fmt.Sprintf("spg-%d", i))
		l.hosts = append(l.hosts, ns)
		port := fmt.Sprintf("port%d", i)
		l.run(l.wire, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns.Name)
		l.run(l.wire, "ip", "link", "set", port, "master", "br0", "up")
		l.run(ns, "ip", "link", "set", "lo", "up")
		l.run(ns, "ip", "address", "add", l.addr(i).Addr().String()+"/24", "dev", "eth0")
		l.run(ns, "ip", "link", "set", "eth0", "up")
	}
	return l
}

func newNS(t *testing.T, name string) *netns.NS {
	t.Helper()
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

func (l *lan) run(ns *netns.NS, args ...string) {
	l.t.Helper()
	if _, err := ns.Run(args[0], args[1:]...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lan) addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 55, 0, byte(i + 1)}), 7946)
}

func (l *lan) cut(i int)  { l.run(l.wire, "ip", "link", "set", fmt.Sprintf("port%d", i), "down") }
func (l *lan) heal(i int) { l.run(l.wire, "ip", "link", "set", fmt.Sprintf("port%d", i), "up") }

// join is the flag every member gets: all addresses, its own included.
func (l *lan) join() []string {
	var out []string
	for i := range l.hosts {
		out = append(out, l.addr(i).Addr().String())
	}
	return out
}

// nsNetwork opens sockets in a namespace.
type nsNetwork struct{ ns *netns.NS }

func (n nsNetwork) listenUDP(a netip.AddrPort) (c *net.UDPConn, err error) {
	err = n.ns.Do(func() (err error) { c, err = host{}.listenUDP(a); return err })
	return c, err
}

func (n nsNetwork) listenTCP(a netip.AddrPort) (c *net.TCPListener, err error) {
	err = n.ns.Do(func() (err error) { c, err = host{}.listenTCP(a); return err })
	return c, err
}

func (n nsNetwork) dialTCP(ctx context.Context, addr string) (c net.Conn, err error) {
	err = n.ns.Do(func() (err error) { c, err = host{}.dialTCP(ctx, addr); return err })
	return c, err
}

// member is a running Gossip.
type member struct {
	*Gossip
	log  *record
	stop func() // graceful
}

func (l *lan) start(i int, change ...func(*Config)) *member {
	l.t.Helper()
	rec := &record{}
	cfg := Config{
		Name: fmt.Sprintf("n%d", i), Bind: l.addr(i), Join: l.join(), Keys: keysOf("the common secret of the lan"),
		Log: slog.New(slog.NewTextHandler(rec, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	g.network = nsNetwork{l.hosts[i]}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	select {
	case <-g.Ready():
	case err := <-ended:
		l.t.Fatal(err)
	}
	m := &member{Gossip: g, log: rec}
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Errorf("run %s: %v", cfg.Name, err)
		}
	})
	l.t.Cleanup(func() {
		m.stop()
		if l.t.Failed() {
			l.t.Logf("end of the log of %s at %s:\n%s", cfg.Name, cfg.Bind, rec.end(40))
		}
	})
	return m
}

// record is a log kept in memory.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *record) end(n int) string {
	lines := strings.Split(r.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func keysOf(secrets ...string) [][]byte {
	var keys [][]byte
	for _, s := range secrets {
		k := sha256.Sum256([]byte(s))
		keys = append(keys, k[:])
	}
	return keys
}

// eventually waits for a condition.
func eventually(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s", within, what)
		case <-look.C:
		}
	}
}

// sees says whether memberlist holds all these members alive, and no others.
func (m *member) sees(names ...string) bool {
	alive := map[string]bool{}
	for _, x := range m.Members() {
		if x.Alive && !x.Self {
			alive[x.Name] = true
		}
	}
	for _, n := range names {
		if !alive[n] {
			return false
		}
	}
	return len(alive) == len(names)
}

// problem finds one by object and reason.
func (m *member) problem(object string, reason Reason) (string, bool) {
	for _, p := range m.Problems() {
		if p.Object == object && p.Reason == reason {
			return p.Message, true
		}
	}
	return "", false
}

// hears waits for a payload from a member; the sender repeats it, as datagrams may
// be lost.
func hears(t *testing.T, to, from *member, payload string) {
	t.Helper()
	eventually(t, 5*time.Second, fmt.Sprintf("%s hears %q from %s", to.cfg.Name, payload, from.cfg.Name), func() bool {
		_ = from.Broadcast([]byte(payload))
		for {
			select {
			case m := <-to.Messages():
				if m.From == from.cfg.Name && string(m.Payload) == payload {
					return true
				}
			default:
				return false
			}
		}
	})
}
