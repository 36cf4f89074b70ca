// Package page serves the status page of one gateway: one file without any request to
// elsewhere, kept current by server-sent events for as long as somebody looks.
package page

import (
	"context"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

//go:embed index.html
var document string

// policy lets the document run its own script and style and ask this server, nothing else.
// What a name or a message in it contains can do nothing, should it ever be taken for HTML.
var policy = fmt.Sprintf("default-src 'none'; script-src %s; style-src %s; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	hash("script"), hash("style"))

// hash of the document's only such element, as a source of a policy.
func hash(element string) string {
	_, rest, _ := strings.Cut(document, "<"+element+">")
	text, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// Page of one gateway. Between two readers it costs nothing.
type Page struct {
	see     func(context.Context) View
	readers chan struct{} // a place for each

	changes atomic.Uint64 // of what is worth to be seen at once
	mu      sync.Mutex
	news    chan struct{} // closed by the next of them

	looking sync.Mutex
	seen    []byte // the last view
	at      time.Time
	upTo    uint64
}

const (
	// atOnce is how many look at a time at most.
	atOnce = 32
	// fresh is how long a view serves everybody.
	fresh = time.Second
	// beat is how often a reader of a quiet view hears that it is still current.
	beat = 10 * time.Second
	// slowest is how long a reader may take to take what was sent.
	slowest = 10 * time.Second
)

// New asks see for a view whenever somebody looks, once a second at most and after Changed.
func New(see func(context.Context) View) *Page {
	return &Page{see: see, readers: make(chan struct{}, atOnce), news: make(chan struct{})}
}

// Changed has those who look see it at once. It never waits.
func (p *Page) Changed() {
	p.changes.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.news)
	p.news = make(chan struct{})
}

func (p *Page) next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.news
}

// Document is an http.Handler of the page, which by itself tells nothing.
func (p *Page) Document(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write([]byte(document)) // the client went away
}
