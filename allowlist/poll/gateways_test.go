package poll

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"encoding/pem"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/allowlist/endpoint"
)

// gateway serves a list.
type gateway struct {
	*httptest.Server
	*endpoint.Endpoint
	mu   sync.Mutex
	list allowlist.List
}

func (g *gateway) set(doubt string, vips ...string) {
	g.mu.Lock()
	g.list = allowlist.List{Kind: allowlist.Routes, Doubt: doubt}
	for _, v := range vips {
		g.list.Entries = append(g.list.Entries, allowlist.Entry{Name: "r" + v, Addresses: []netip.Addr{netip.MustParseAddr(v)}})
	}
	g.mu.Unlock()
	g.Changed()
}

func newGateway(t *testing.T, start func(http.Handler) *httptest.Server, vips ...string) *gateway {
	g := &gateway{}
	g.Endpoint = endpoint.New(func() (allowlist.List, bool) {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.list, true
	})
	g.set("", vips...)
	mux := http.NewServeMux()
	mux.Handle("GET "+endpoint.Path, g.Endpoint)
	g.Server = start(mux)
	t.Cleanup(g.end)
	return g
}

// end as a gateway that dies does.
func (g *gateway) end() {
	g.CloseClientConnections()
	g.Listener.Close()
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func text(l allowlist.List) string {
	out, err := allowlist.Print(l, allowlist.Text, allowlist.Sets{})
	if err != nil {
		return err.Error()
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		addr, _, _ := strings.Cut(line, "\t")
		all = append(all, addr)
	}
	return l.Doubt + strings.Join(all, " ")
}

// follow gives each list that is delivered.
func follow(t *testing.T, urls ...string) (next func(want string)) {
	t.Helper()
	g, err := New(urls, "", quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	lists, ended := make(chan string, 64), make(chan error, 1)
	go func() { ended <- g.Run(ctx, func(l allowlist.List) { lists <- text(l) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		close(lists)
		for l := range lists {
			t.Errorf("one more list was delivered: %s", l)
		}
	})
	return func(want string) {
		t.Helper()
		select {
		case got := <-lists:
			if got != want {
				t.Fatalf("delivered %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%q is not delivered", want)
		}
	}
}

func TestEachChangeIsDeliveredOnce(t *testing.T) {
	a := newGateway(t, httptest.NewServer, "192.0.2.1")
	next := follow(t, a.URL)
	next("192.0.2.1")
	a.set("", "192.0.2.1", "192.0.2.2")
	next("192.0.2.1 192.0.2.2")
	a.Changed()
	a.set("", "192.0.2.2")
	next("192.0.2.2")
}

func TestTheNextGatewayIsAskedWhenOneDies(t *testing.T) {
	a, b := newGateway(t, httptest.NewServer, "192.0.2.1"), newGateway(t, httptest.NewServer, "192.0.2.1")
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	next := follow(t, dead.URL, a.URL, b.URL+endpoint.Path)
	next("192.0.2.1")
	a.end() // b says the same, which is not delivered again
	b.set("", "192.0.2.2")
	next("192.0.2.2")
}

func TestAGatewayThatDoubtsIsLeftForOneThatDoesNot(t *testing.T) {
	a, b := newGateway(t, httptest.NewServer), newGateway(t, httptest.NewServer, "192.0.2.2")
	a.set("old ", "192.0.2.1")
	next := follow(t, a.URL, b.URL)
	next("old 192.0.2.1")
	next("192.0.2.2")
	b.set("", "192.0.2.3")
	next("192.0.2.3")
}

func TestWhatIsNoListIsNotDelivered(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"a page":     func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>sign in</html>") },
		"nothing":    func(http.ResponseWriter, *http.Request) {},
		"an error":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no view", http.StatusServiceUnavailable) },
		"unmodified": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) },
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "999")
			io.WriteString(w, "{")
		},
		"not allowed": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"format":1,"kind":"routes","entries":[{"name":"a","addresses":["0.0.0.0"]}]}`)
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			bad := httptest.NewServer(answer)
			t.Cleanup(bad.Close)
			good := newGateway(t, httptest.NewServer, "192.0.2.1")
			follow(t, bad.URL, good.URL)("192.0.2.1")
			g, err := New([]string{bad.URL}, "", quiet())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := g.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), bad.URL) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestFetchPrefersOneThatDoesNotDoubt(t *testing.T) {
	a, b := newGateway(t, httptest.NewServer), newGateway(t, httptest.NewServer, "192.0.2.2")
	a.set("old ", "192.0.2.1")
	for want, urls := range map[string][]string{"192.0.2.2": {a.URL, b.URL}, "old 192.0.2.1": {"http://127.0.0.1:1", a.URL}} {
		g, err := New(urls, "", quiet())
		if err != nil {
			t.Fatal(err)
		}
		if l, err := g.Fetch(t.Context()); err != nil || text(l) != want {
			t.Errorf("%v: %v, %v", urls, text(l), err)
		}
	}
}

func TestHTTPSNeedsItsAuthority(t *testing.T) {
	a := newGateway(t, httptest.NewTLSServer, "192.0.2.1")
	file := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for ca, ok := range map[string]bool{file: true, "": false} {
		g, err := New([]string{a.URL}, ca, quiet())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Fetch(t.Context()); (err == nil) != ok {
			t.Errorf("with %q: %v", ca, err)
		}
	}
}

func TestURLsThatAreNone(t *testing.T) {
	for _, u := range []string{"192.0.2.1:9873", "ftp://a", "http://", "http://a?wait=1"} {
		if _, err := New([]string{u}, "", quiet()); err == nil || !strings.Contains(err.Error(), u) {
			t.Errorf("%s: %v", u, err)
		}
	}
	if _, err := New(nil, "", quiet()); err == nil {
		t.Error("none are taken")
	}
	if _, err := New([]string{"https://a"}, "/dev/null", quiet()); err == nil || !strings.Contains(err.Error(), "PEM") {
		t.Errorf("%v", err)
	}
}
