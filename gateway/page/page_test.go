package page

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheDocumentAsksNobodyElse(t *testing.T) {
	w := httptest.NewRecorder()
	New(nil).Document(w, httptest.NewRequest(http.MethodGet, "/", nil))
	policy := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy %q lacks %q", policy, want)
		}
	}
	body := w.Body.String()
	for _, never := range []string{"http://", "https://", "//cdn", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "cookie", "localStorage"} {
		if strings.Contains(body, never) {
			t.Errorf("the document has %q", never)
		}
	}
	for _, once := range []string{"<script", "<style"} {
		if strings.Count(body, once) != 1 {
			t.Errorf("%d times %s: the policy has the hash of one", strings.Count(body, once), once)
		}
	}
}

func TestAViewNamesNoPodsAndIsSmall(t *testing.T) {
	s := host.Status{Name: "gw-0"}
	for i := range 20_000 {
		s.Pods = append(s.Pods, host.Pod{Namespace: "shop", Name: "secret-name", Node: []string{"n1", "n2"}[i%3/2]})
		s.Problems = append(s.Problems, gateway.Problem{Object: "Pod shop/x", Reason: gateway.UnknownRoute, Message: "there is none"})
	}
	s.VIPs = []host.VIP{{VIP: netip.MustParseAddr("192.0.2.10"), Holder: "gw-0", Held: true, Replication: &host.Replication{
		Standbys: []host.Standby{{Name: "gw-1", LagSeconds: .00149}}}}}
	v := See(s, func(netip.Addr) []election.Spell { return nil }, []string{"n1", "n2", "n3"})
	text, err := json.Marshal(v)
	if err != nil || len(text) > 10_000 || strings.Contains(string(text), "secret-name") {
		t.Errorf("%d bytes: %v", len(text), err)
	}
	if v.Problems.More != 19_950 || len(v.Nodes.First) != 3 || v.Nodes.First[0] != (Node{"n1", 13334}) || v.Nodes.First[2] != (Node{"n3", 0}) {
		t.Errorf("more problems %d, nodes %+v", v.Problems.More, v.Nodes)
	}
	if lag := v.VIPs[0].Standbys[0].LagMilliseconds; lag != 1 {
		t.Errorf("lag %v", lag)
	}
}

// transcript is a reader that never goes away by itself.
type transcript struct {
	http.ResponseWriter
	text  strings.Builder
	wrote chan struct{}
}

func (w *transcript) Header() http.Header { return http.Header{} }
func (w *transcript) WriteHeader(int)     {}
func (w *transcript) Flush()              {}
func (w *transcript) Write(p []byte) (int, error) {
	n, err := w.text.Write(p)
	w.wrote <- struct{}{}
	return n, err
}

// What one reader has looked at is for others, too: his going away spoils it for nobody.
// And what names nodes and problems is kept in no cache.
func TestAViewOutlivesItsReader(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	leave()
	p := New(func(ctx context.Context) View {
		if err := ctx.Err(); err != nil {
			t.Errorf("it is looked at with %v", err)
		}
		return View{}
	})
	w := httptest.NewRecorder()
	p.Events(w, httptest.NewRequest(http.MethodGet, "/events", nil).WithContext(ctx))
	if got := w.Header().Get("Cache-Control"); got != "no-store" || !strings.HasPrefix(w.Body.String(), "data: ") {
		t.Errorf("Cache-Control %q, %q", got, w.Body)
	}
}

func TestAViewIsSentWhenItChangesAndBeatsBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int64
		var holder atomic.Value
		holder.Store("gw-0")
		p := New(func(context.Context) View {
			seen.Add(1)
			return View{VIPs: []VIP{{Holder: holder.Load().(string)}}}
		})
		time.Sleep(time.Hour)
		p.Changed()
		if seen.Load() != 0 {
			t.Errorf("looked %d times while nobody did", seen.Load())
		}
		ctx, leave := context.WithCancel(t.Context())
		var all []*transcript
		for range 3 {
			w := &transcript{wrote: make(chan struct{}, 100)}
			all = append(all, w)
			go p.Events(w, httptest.NewRequest(http.MethodGet, "/events", nil).WithContext(ctx))
		}
		synctest.Wait()
		if seen.Load() != 1 {
			t.Errorf("%d looks for three readers at a time", seen.Load())
		}
		time.Sleep(25*time.Second + time.Millisecond)
		synctest.Wait()
		before := time.Now()
		holder.Store("gw-1")
		p.Changed()
		synctest.Wait() // and no time passes
		if now := time.Now(); !now.Equal(before) {
			t.Errorf("seen after %v", now.Sub(before))
		}
		leave()
		synctest.Wait()
		for _, w := range all {
			text := w.text.String()
			if n := strings.Count(text, "data: "); n != 2 || strings.Count(text, ": still so\n\n") != 2 || !strings.Contains(text, `"holder":"gw-1"`) {
				t.Errorf("%d views in %q", n, text)
			}
		}
		if len(p.readers) != 0 {
			t.Errorf("%d readers are left", len(p.readers))
		}
		looks := seen.Load()
		if looks > 35 {
			t.Errorf("%d looks in 25 seconds", looks)
		}
		time.Sleep(time.Hour)
		if seen.Load() != looks {
			t.Error("looked on after the last reader left")
		}
	})
}

// get opens the events over a real connection, and says what the answer's head says.
func get(t *testing.T, url string) (status int, retryAfter string, conn net.Conn) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		_ = resp.Body.Close() // it has no end of its own
	})
	return resp.StatusCode, resp.Header.Get("Retry-After"), conn
}

func TestReadersAreBounded(t *testing.T) {
	p := New(func(context.Context) View { return View{} })
	server := httptest.NewServer(http.HandlerFunc(p.Events))
	t.Cleanup(server.Close) // after those who read have gone
	var conns []net.Conn
	for range atOnce {
		status, _, conn := get(t, server.URL)
		if status != http.StatusOK {
			t.Fatal(status)
		}
		conns = append(conns, conn)
	}
	if status, retryAfter, _ := get(t, server.URL); status != http.StatusServiceUnavailable || retryAfter == "" {
		t.Errorf("one more: %d, Retry-After %q", status, retryAfter)
	}
	for _, c := range conns {
		c.Close()
	}
	for len(p.readers) > 0 { // each leaves its place; a leak would hang the test
		time.Sleep(time.Millisecond)
	}
	if status, _, _ := get(t, server.URL); status != http.StatusOK {
		t.Errorf("after they left: %d", status)
	}
}

// stuck takes what it is given only until its deadline passes, as a connection whose other
// side reads nothing.
type stuck struct {
	transcript
	deadline time.Time
}

func (w *stuck) SetWriteDeadline(at time.Time) error { w.deadline = at; return nil }
func (w *stuck) Write([]byte) (int, error) {
	time.Sleep(time.Until(w.deadline))
	return 0, context.DeadlineExceeded
}

func TestASlowReaderIsLetGoAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(func(context.Context) View { return View{} })
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		quick := &transcript{wrote: make(chan struct{}, 100)}
		gone := make(chan struct{})
		go func() {
			p.Events(&stuck{}, httptest.NewRequest(http.MethodGet, "/events", nil).WithContext(ctx))
			close(gone)
		}()
		synctest.Wait()
		began := time.Now()
		go p.Events(quick, httptest.NewRequest(http.MethodGet, "/events", nil).WithContext(ctx))
		<-quick.wrote
		if waited := time.Since(began); waited > 0 {
			t.Errorf("the quick one waited %v", waited)
		}
		<-gone
		if took := time.Since(began); took != slowest {
			t.Errorf("the slow one was let go after %v", took)
		}
	})
}
