// Package endpoint serves a list over HTTP, with an ETag, and holds a request back until
// the list is another one.
package endpoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/allowlist"
)

const (
	// Path is where the list is.
	Path = "/allowlist"
	// longest is how long a request is held back at most, atOnce how many are.
	longest = 5 * time.Minute
	atOnce  = 512
)

// Endpoint is an http.Handler of GET /allowlist.
type Endpoint struct {
	current func() (allowlist.List, bool)
	waiting chan struct{}

	mu      sync.Mutex
	changed chan struct{}
}

// New serves what current gives; false: there is no list yet.
func New(current func() (allowlist.List, bool)) *Endpoint {
	return &Endpoint{current: current, waiting: make(chan struct{}, atOnce), changed: make(chan struct{})}
}

// Changed has all who wait look again.
func (e *Endpoint) Changed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *Endpoint) next() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// query is what is asked for.
type query struct {
	format string
	names  []string
	sets   allowlist.Sets
	wait   time.Duration
}

func parse(r *http.Request) (q query, err error) {
	values := r.URL.Query()
	for key := range values {
		if !slices.Contains([]string{"format", "route", "set", "wait"}, key) {
			return q, fmt.Errorf("%s: there are format, route, set and wait", key)
		}
	}
	q.names, q.format = values["route"], values.Get("format")
	if q.format == "" {
		q.format = allowlist.Text
	}
	if !slices.Contains(allowlist.Formats, q.format) {
		return q, fmt.Errorf("format=%s: choose one of %s", q.format, strings.Join(allowlist.Formats, ", "))
	}
	if set := values.Get("set"); set != "" {
		switch q.format {
		case allowlist.NFT:
			q.sets, err = allowlist.ParseNFT(set)
		case allowlist.IPSet:
			q.sets, err = allowlist.ParseIPSet(set)
		default:
			err = errors.New("only with format=nft or format=ipset")
		}
		if err != nil {
			return q, fmt.Errorf("set=%s: %w", set, err)
		}
	}
	if wait := values.Get("wait"); wait != "" {
		seconds, err := strconv.Atoi(strings.TrimSuffix(wait, "s"))
		if err != nil || seconds < 0 {
			return q, fmt.Errorf("wait=%s: give seconds, such as 30", wait)
		}
		q.wait = min(time.Duration(seconds)*time.Second, longest)
	}
	return q, nil
}

// ServeHTTP implements http.Handler.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, err := parse(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	known := r.Header.Get("If-None-Match")
	ctx, cancel := context.WithTimeout(r.Context(), q.wait)
	defer cancel()
	waits := false
	for {
		next := e.next()
		body, status, err := e.body(q)
		if err != nil {
			w.Header().Set("Retry-After", "1")
			http.Error(w, err.Error(), status)
			return
		}
		tag := etag(body)
		if !matches(known, tag) {
			answer(w, q.format, tag, body)
			return
		}
		if q.wait > 0 && !waits {
			select {
			case e.waiting <- struct{}{}:
				waits = true
				defer func() { <-e.waiting }()
			default:
				w.Header().Set("Retry-After", "1")
				http.Error(w, fmt.Sprintf("%d requests wait already: ask another gateway", atOnce), http.StatusServiceUnavailable)
				return
			}
		}
		select {
		case <-next:
			continue
		case <-ctx.Done():
		}
		// What is doubted changes without a word.
		if body, _, err := e.body(q); err == nil && etag(body) != tag {
			answer(w, q.format, etag(body), body)
			return
		}
		w.Header().Set("ETag", tag)
		w.WriteHeader(http.StatusNotModified)
		return
	}
}

func (e *Endpoint) body(q query) (body []byte, status int, err error) {
	list, ok := e.current()
	if !ok {
		return nil, http.StatusServiceUnavailable, errors.New("this gateway has no view of the cluster yet")
	}
	list, err = list.Only(q.names)
	if err != nil {
		return nil, http.StatusNotFound, err
	}
	if body, err = allowlist.Print(list, q.format, q.sets); err != nil {
		return nil, http.StatusServiceUnavailable, err
	}
	return body, http.StatusOK, nil
}

func answer(w http.ResponseWriter, format, tag string, body []byte) {
	kind := "text/plain; charset=utf-8"
	switch format {
	case allowlist.JSON:
		kind = "application/json"
	case allowlist.Salt:
		kind = "application/yaml"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(body) // the client went away
}

// etag is the same on every gateway that says the same.
func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return fmt.Sprintf(`"%x"`, sum[:16])
}

// matches reads If-None-Match (RFC 9110, 13.1.2).
func matches(header, tag string) bool {
	for known := range strings.SplitSeq(header, ",") {
		known = strings.TrimPrefix(strings.TrimSpace(known), "W/")
		if known == tag || known == "*" {
			return true
		}
	}
	return false
}
