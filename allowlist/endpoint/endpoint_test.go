package endpoint

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/allowlist"
)

// board is what a gateway says now.
type board struct {
	*Endpoint
	mu   sync.Mutex
	list allowlist.List
	none bool
}

func newBoard(vips ...string) *board {
	b := &board{}
	b.Endpoint = New(func() (allowlist.List, bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.list, !b.none
	})
	b.set("", vips...)
	return b
}

func (b *board) set(doubt string, vips ...string) {
	b.mu.Lock()
	b.list = allowlist.List{Kind: allowlist.Routes, Doubt: doubt}
	for i, v := range vips {
		b.list.Entries = append(b.list.Entries, allowlist.Entry{Name: fmt.Sprintf("r%d", i), Addresses: []netip.Addr{netip.MustParseAddr(v)}})
	}
	b.mu.Unlock()
}

func (b *board) ask(query, tag string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, Path+query, nil)
	r.Header.Set("If-None-Match", tag)
	b.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	b := newBoard("192.0.2.10", "192.0.2.11")
	for _, c := range []struct {
		query, kind string
		status      int
		want        string
	}{
		{"", "text/plain", 200, "192.0.2.10\tr0\n192.0.2.11\tr1\n"},
		{"?route=r1", "text/plain", 200, "192.0.2.11\tr1\n"},
		{"?route=r1&route=r0", "text/plain", 200, "192.0.2.10\tr0\n192.0.2.11\tr1\n"},
		{"?format=json", "application/json", 200, `"kind": "routes"`},
		{"?format=salt", "application/yaml", 200, "allowlist:"},
		{"?format=nft&set=ip/filter/partners", "text/plain", 200, "add element ip filter partners4 { 192.0.2.10"},
		{"?format=ipset&set=partners", "text/plain", 200, "swap partners4~ partners4"},
		{"?route=r9", "text/plain", 404, "r9"},
		{"?format=xml", "text/plain", 400, "choose one of text"},
		{"?format=nft&set=partners", "text/plain", 400, "FAMILY/TABLE/NAME"},
		{"?set=partners", "text/plain", 400, "only with"},
		{"?wait=soon", "text/plain", 400, "seconds"},
		{"?wait=-1", "text/plain", 400, "seconds"},
		{"?routes=r1", "text/plain", 400, "route, set"},
	} {
		w := b.ask(c.query, "")
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || !strings.HasPrefix(w.Header().Get("Content-Type"), c.kind) {
			t.Errorf("%s: %d %s %q", c.query, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
	}
	b.set("")
	if w := b.ask("", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "no address") {
		t.Errorf("an empty text: %d %q", w.Code, w.Body)
	}
	b.none = true
	if w := b.ask("?format=json", ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("before there is a view: %d %q", w.Code, w.Body)
	}
}

func TestTheTagIsOfWhatIsAnswered(t *testing.T) {
	b, other := newBoard("192.0.2.10"), newBoard("192.0.2.10")
	tag := b.ask("", "").Header().Get("ETag")
	if len(tag) != 34 || other.ask("", "").Header().Get("ETag") != tag || b.ask("?format=json", "").Header().Get("ETag") == tag {
		t.Errorf("tag %s", tag)
	}
	for known, want := range map[string]int{tag: 304, "W/" + tag: 304, `"a", ` + tag: 304, "*": 304, `"a"`: 200, "": 200} {
		if w := b.ask("", known); w.Code != want || want == 304 && (w.Body.Len() > 0 || w.Header().Get("ETag") != tag) {
			t.Errorf("%s: %d", known, w.Code)
		}
	}
	b.set("", "192.0.2.11")
	if w := b.ask("", tag); w.Code != 200 {
		t.Errorf("another list: %d", w.Code)
	}
}

func TestARequestWaitsForTheNextList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("192.0.2.10")
		tag := b.ask("", "").Header().Get("ETag")
		began := time.Now()
		answered := make(chan *httptest.ResponseRecorder, 1)
		go func() { answered <- b.ask("?wait=60s", tag) }()
		synctest.Wait()
		time.Sleep(30 * time.Second)
		b.Changed() // for the same
		synctest.Wait()
		if len(answered) > 0 {
			t.Fatal("answered though the list is the same")
		}
		b.set("", "192.0.2.11")
		b.Changed()
		synctest.Wait()
		if w := <-answered; w.Code != 200 || w.Body.String() != "192.0.2.11\tr0\n" || time.Since(began) != 30*time.Second {
			t.Errorf("%d %q after %v", w.Code, w.Body, time.Since(began))
		}
		// Known by another tag, it is answered at once.
		if w := b.ask("?wait=60", tag); w.Code != 200 || time.Since(began) != 30*time.Second {
			t.Errorf("%d after %v", w.Code, time.Since(began))
		}
		tag, began = b.ask("", "").Header().Get("ETag"), time.Now()
		if w := b.ask("?wait=60", tag); w.Code != 304 || time.Since(began) != time.Minute {
			t.Errorf("without a change: %d after %v", w.Code, time.Since(began))
		}
		if w := b.ask("?wait=99999", tag); w.Code != 304 || time.Since(began) != time.Minute+longest {
			t.Errorf("the longest: %d after %v", w.Code, time.Since(began))
		}
	})
}

func TestDoubtIsSeenAtTheEndOfTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("192.0.2.10")
		tag := b.ask("?format=json", "").Header().Get("ETag")
		time.AfterFunc(time.Second, func() { b.set("the API server is away", "192.0.2.10") })
		if w := b.ask("?format=json&wait=60", tag); w.Code != 200 || !strings.Contains(w.Body.String(), "is away") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

func TestNoMoreWaitThanCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("192.0.2.10")
		tag := b.ask("", "").Header().Get("ETag")
		var all sync.WaitGroup
		for range atOnce {
			all.Go(func() {
				if w := b.ask("?wait=60", tag); w.Code != 304 {
					t.Errorf("one of those that may wait: %d", w.Code)
				}
			})
		}
		synctest.Wait()
		if w := b.ask("?wait=60", tag); w.Code != 503 || !strings.Contains(w.Body.String(), "another gateway") {
			t.Errorf("one too many: %d %s", w.Code, w.Body)
		}
		if w := b.ask("", ""); w.Code != 200 {
			t.Errorf("one that does not wait: %d", w.Code)
		}
		all.Wait()
		if w := b.ask("?wait=1", tag); w.Code != 304 {
			t.Errorf("when all have gone: %d", w.Code)
		}
	})
}
