// Package poll follows the list that gateways serve, from outside of the cluster: it asks
// one of them and waits for its answer, and turns to the next when that one has none.
package poll

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/allowlist/endpoint"
)

const (
	// hold is how long a gateway may hold a request back when nothing changes.
	hold = 20 * time.Second
	// grace is what an answer may take besides.
	grace = 5 * time.Second
	// pace is the least time between two requests, whatever is answered.
	pace = 100 * time.Millisecond
	// pauseMost is the longest pause when no gateway answers.
	pauseMost = 5 * time.Second
	// largest answer that is read.
	largest = 16 << 20
)

// Gateways of one cluster.
type Gateways struct {
	urls   []string
	client *http.Client
	log    *slog.Logger
	failed map[string]string // what was said of a URL, as long as it is so
}

// New takes the gateways' URLs, such as http://192.0.2.1:9873, and, where they are https
// of an authority that the host does not know, the file with its certificate.
func New(urls []string, caFile string, log *slog.Logger) (*Gateways, error) {
	g := &Gateways{log: log, failed: map[string]string{}}
	var errs []error
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			errs = append(errs, fmt.Errorf("--url %s: give one such as http://192.0.2.1:9873", text))
			continue
		}
		if u.Path == "" || u.Path == "/" {
			u.Path = endpoint.Path
		}
		g.urls = append(g.urls, u.String())
	}
	if len(urls) == 0 {
		errs = append(errs, errors.New("--url is missing: give the address of each gateway, such as http://192.0.2.1:9873"))
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	// A gateway whose host died does not say so.
	t.DialContext = (&net.Dialer{Timeout: 3 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3,
	}}).DialContext
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		roots := x509.NewCertPool()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("--ca-file: %w", err))
		case !roots.AppendCertsFromPEM(pem):
			errs = append(errs, fmt.Errorf("--ca-file %s: there is no certificate in it: give a file in PEM", caFile))
		}
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	g.client = &http.Client{Transport: t}
	return g, errors.Join(errs...)
}

// Fetch asks once: one gateway after the other until one is sure of its list.
func (g *Gateways) Fetch(ctx context.Context) (allowlist.List, error) {
	var doubtful *allowlist.List
	var errs []error
	for _, u := range g.urls {
		l, _, err := g.get(ctx, u, "", 0)
		switch {
		case err != nil:
			errs = append(errs, err)
		case l.Doubt == "":
			return *l, nil
		case doubtful == nil:
			doubtful = l
		}
	}
	if doubtful != nil {
		return *doubtful, nil
	}
	return allowlist.List{}, errors.Join(errs...)
}

// Run delivers the list, and again when it is another one, until the context ends.
func (g *Gateways) Run(ctx context.Context, deliver func(allowlist.List)) error {
	defer g.client.CloseIdleConnections()
	tag, doubt, fruitless := "", "", 0
	wait := time.Duration(0) // a gateway that was not asked yet answers at once
	for i := 0; ; {
		began := time.Now()
		list, now, err := g.get(ctx, g.urls[i], tag, wait)
		if ctx.Err() != nil {
			return nil
		}
		g.say(g.urls[i], err)
		if list != nil {
			tag, doubt = now, list.Doubt
			deliver(*list)
		}
		pause := pace
		switch {
		case err == nil && doubt == "":
			if list == nil && wait > 0 && time.Since(began) < time.Second {
				pause = time.Second // it does not wait
			}
			wait, fruitless = hold, 0
		default: // the next may know better
			i, wait = (i+1)%len(g.urls), 0
			if fruitless++; fruitless%len(g.urls) == 0 {
				pause = min(pace<<min(fruitless/len(g.urls), 10), pauseMost)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// say once what became of a gateway.
func (g *Gateways) say(u string, err error) {
	before := g.failed[u]
	switch {
	case err == nil && before != "":
		delete(g.failed, u)
		g.log.Info("gateway answers again", "url", u)
	case err != nil && err.Error() != before:
		g.failed[u] = err.Error()
		g.log.Warn("gateway does not answer, the next one is asked", "url", u, "error", err)
	}
}

// get asks one gateway; a list of nil is the one known by its tag.
func (g *Gateways) get(ctx context.Context, u, tag string, wait time.Duration) (*allowlist.List, string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wait+grace, fmt.Errorf("no answer within %v", wait+grace))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s?format=%s&wait=%d", u, allowlist.JSON, int(wait.Seconds())), nil)
	if err != nil {
		return nil, "", fmt.Errorf("--url %s: %w", u, err)
	}
	req.Header.Set("If-None-Match", tag)
	resp, err := g.client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		var where *url.Error
		if errors.As(err, &where) { // the URL with the query is in it
			err = where.Err
		}
		return nil, "", fmt.Errorf("ask %s for its list: %w", u, plain(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified && tag != "" {
		return nil, tag, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, largest))
	if err != nil {
		return nil, "", fmt.Errorf("read the list of %s: %w", u, plain(err))
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("%s answers %s: %.200q", u, resp.Status, body)
	}
	list, err := allowlist.Decode(body)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", u, err)
	}
	return &list, resp.Header.Get("ETag"), nil
}

// plain is the error without the ports of one attempt, so that the next is no other error.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
