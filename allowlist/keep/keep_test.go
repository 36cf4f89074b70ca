package keep_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/allowlist/keep"
)

// firewall remembers what it was last made equal to.
type firewall struct {
	applied chan string
	fails   error
}

func (f *firewall) Apply(_ context.Context, all []allowlist.Address) (added, removed []netip.Addr, err error) {
	if f.fails != nil {
		err, f.fails = f.fails, nil
		return nil, nil, err
	}
	var texts []string
	for _, a := range all {
		texts = append(texts, a.String())
	}
	f.applied <- strings.Join(texts, " ")
	return nil, nil, nil
}

func (f *firewall) Watch(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }

// source delivers what it is given.
type source chan allowlist.List

func (s source) Run(ctx context.Context, deliver func(allowlist.List)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-s:
			deliver(l)
		}
	}
}

type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.text.String(), text)
}

func routes(addrs ...string) allowlist.List {
	l := allowlist.List{Kind: allowlist.Routes}
	for _, a := range addrs {
		l.Entries = append(l.Entries, allowlist.Entry{Name: "r" + strings.ReplaceAll(a, ".", "-"), Addresses: []netip.Addr{netip.MustParseAddr(a)}})
	}
	return l
}

// run keeps a firewall until the test ends or stop is called.
func run(t *testing.T, cfg keep.Config) (from source, fw *firewall, log *journal, stop func()) {
	t.Helper()
	from, fw, log = make(source), &firewall{applied: make(chan string, 64)}, &journal{}
	k := keep.New(cfg, from, fw, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return from, fw, log, stop
}

// next waits for what is applied.
func (f *firewall) next(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-f.applied:
		if got != want {
			t.Fatalf("applied %q, want %q", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%q is not applied", want)
	}
}

func TestTheSavedListIsInForceUntilABetterComes(t *testing.T) {
	cfg := keep.Config{Kind: allowlist.Routes, File: filepath.Join(t.TempDir(), "new", "list")}
	from, fw, _, stop := run(t, cfg)
	from <- routes("192.0.2.1")
	fw.next(t, "192.0.2.1")
	from <- routes("192.0.2.1", "192.0.2.2")
	fw.next(t, "192.0.2.1 192.0.2.2")
	stop()

	from, fw, log, stop := run(t, cfg)
	fw.next(t, "192.0.2.1 192.0.2.2")
	from <- routes() // not meant
	fw.next(t, "192.0.2.1 192.0.2.2")
	doubt := routes("192.0.2.3")
	doubt.Doubt = "it is away"
	from <- doubt
	fw.next(t, "192.0.2.1 192.0.2.2")
	if !log.has("no address") || !log.has("it is away") {
		t.Error("it does not say why")
	}
	from <- allowlist.List{Kind: allowlist.Routes, Empty: true}
	fw.next(t, "")
	stop()
	_, fw, _, _ = run(t, cfg)
	fw.next(t, "")
}

func TestFlagsWorkOnTheSavedList(t *testing.T) {
	cfg := keep.Config{Kind: allowlist.Routes, File: filepath.Join(t.TempDir(), "list"), Names: []string{"r192-0-2-1"}}
	from, fw, _, stop := run(t, cfg)
	from <- routes("192.0.2.1", "198.51.100.2")
	fw.next(t, "192.0.2.1")
	stop()
	cfg.Names = nil
	_, fw, _, stop = run(t, cfg)
	fw.next(t, "192.0.2.1 198.51.100.2")
	stop()
	cfg.Within = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	from, fw, log, _ := run(t, cfg)
	fw.next(t, "192.0.2.1")
	from <- routes("198.51.100.2") // nothing of it is left
	from <- routes("192.0.2.7", "198.51.100.2")
	fw.next(t, "192.0.2.7")
	if !log.has("198.51.100.2 of r198-51-100-2") {
		t.Error("it does not say what is left out")
	}
}

func TestAListThatIsNoneOfTheirsIsNotTaken(t *testing.T) {
	nodes := routes("192.0.2.9")
	nodes.Kind = allowlist.Nodes
	for name, text := range map[string]string{"damaged": "sallyport-allowlist 1 crc32c 00000000\n{}", "of nodes": string(allowlist.Seal(nodes))} {
		t.Run(name, func(t *testing.T) {
			cfg := keep.Config{Kind: allowlist.Routes, File: filepath.Join(t.TempDir(), "list")}
			if err := os.WriteFile(cfg.File, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			from, fw, log, _ := run(t, cfg)
			from <- routes("192.0.2.1")
			fw.next(t, "192.0.2.1")
			if !log.has("cannot be used") || !log.has(cfg.File) {
				t.Error("it does not say so")
			}
		})
	}
}

func TestWhatFailsIsTriedAgain(t *testing.T) {
	from, fw, log, _ := run(t, keep.Config{Kind: allowlist.Routes, File: filepath.Join(t.TempDir(), "list")})
	fw.fails = errors.New("the set is another's")
	from <- routes("192.0.2.1")
	fw.next(t, "192.0.2.1")
	if !log.has("another's") {
		t.Error("it does not say why")
	}
}
