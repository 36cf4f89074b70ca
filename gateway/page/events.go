package page

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Events is an http.Handler that sends the view, and again whenever it is another one.
func (p *Page) Events(w http.ResponseWriter, r *http.Request) {
	select {
	case p.readers <- struct{}{}:
		defer func() { <-p.readers }()
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("%d look at this gateway already: look at another, or close a page", atOnce), http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("X-Accel-Buffering", "no") // proxies that would keep events back
	out := http.NewResponseController(w)
	tick := time.NewTicker(fresh)
	defer tick.Stop()
	var sent []byte
	var last time.Time
	for {
		news := p.next()
		view, err := p.look(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		var message []byte
		switch now := time.Now(); {
		case !bytes.Equal(view, sent):
			// Its own clock, for a reader's is another; it makes no view a new one.
			message = fmt.Appendf(nil, "data: {\"now\":%d,\"view\":%s}\n\n", now.UnixMilli(), view)
			sent, last = view, now
		case now.Sub(last) >= beat:
			message, last = []byte(": still so\n\n"), now
		}
		if message != nil {
			// Who does not take it is let go: the connection breaks at the deadline.
			_ = out.SetWriteDeadline(time.Now().Add(slowest)) // where there are none, as in tests
			if _, err := w.Write(message); err != nil {
				return
			}
			if err := out.Flush(); err != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-news:
		case <-tick.C:
		}
	}
}

// look gives the view as it is now, or was a moment ago: all who look share one.
func (p *Page) look(ctx context.Context) ([]byte, error) {
	p.looking.Lock()
	defer p.looking.Unlock()
	changes := p.changes.Load()
	if p.seen != nil && changes == p.upTo && time.Since(p.at) < fresh*9/10 {
		return p.seen, nil
	}
	view, err := json.Marshal(p.see(context.WithoutCancel(ctx))) // it is for others, too
	if err != nil {
		return nil, fmt.Errorf("encode the view: %w", err)
	}
	p.seen, p.at, p.upTo = view, time.Now(), changes
	return view, nil
}
