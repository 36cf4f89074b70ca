package k8s

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/e2e/lab"
)

// offered has the gateways tell what an outside firewall must admit.
const offered = "allowlist.expose=true"

// allowlistService is the address of the gateways' Service.
func (w *world) allowlistService() string {
	w.t.Helper()
	return w.kubectl("-n", namespace, "get", "service", "sallyport-allowlist", "-o", "jsonpath={.spec.clusterIP}")
}

// asksForTheAllowlist demands that the Service answers, and each gateway's node, and that
// `sallyport allowlist` says what they do.
func (w *world) asksForTheAllowlist() {
	w.t.Helper()
	hosts := []string{w.allowlistService()}
	for _, j := range w.everyNode() {
		hosts = append(hosts, w.Lab.NodeIP(j).String())
	}
	for _, host := range hosts {
		w.allows(host, allowlist.Text, theVIP.String()+"\tpayments\n")
	}
	// The list stands in one of the formats, and the others are made of it.
	list, err := allowlist.Decode([]byte(w.allows(hosts[0], allowlist.JSON, "")))
	w.must(err)
	for _, format := range allowlist.Formats {
		text, err := allowlist.Print(list, format, allowlist.Sets{})
		w.must(err)
		if !strings.Contains(string(text), theVIP.String()) {
			w.t.Errorf("%s does not admit %s:\n%s", format, theVIP, text)
		}
		w.allows(hosts[0], format, string(text))
		said, err := w.Lab.Exec(lab.NodeName(w.everyNode()[0]), w.program(), "allowlist", "--url", "http://"+hosts[0]+":9873", "-o", format)
		if w.must(err); said != string(text) {
			w.t.Errorf("sallyport allowlist -o %s says\n%s\nwant\n%s", format, said, text)
		}
	}
}

// waitsForTheAllowlist demands of the Service that it has nothing new for who has the list, and
// that who waits is told of what is done then, without the VIP.
func (w *world) waitsForTheAllowlist(then func()) {
	w.t.Helper()
	url := "http://" + w.allowlistService() + ":9873/allowlist?format=json"
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		return w.Lab.Dial(lab.NodeName(w.everyNode()[0]), netip.MustParseAddrPort(address), 5*time.Second)
	}}}
	type answer struct {
		code       int
		etag, text string
		err        error
	}
	ask := func(url, known string) (a answer) {
		req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, url, nil)
		w.must(err)
		req.Header.Set("If-None-Match", known)
		resp, err := client.Do(req)
		if err != nil {
			return answer{err: err}
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return answer{resp.StatusCode, resp.Header.Get("ETag"), string(text), err}
	}
	now := ask(url, "")
	if now.err != nil || now.code != http.StatusOK || now.etag == "" || !strings.Contains(now.text, theVIP.String()) {
		w.t.Fatalf("%s: %+v", url, now)
	}
	for range w.everyNode() { // whichever gateway it is
		if same := ask(url, now.etag); same.err != nil || same.code != http.StatusNotModified {
			w.t.Errorf("%s, which is known as %s: %+v", url, now.etag, same)
		}
	}
	told := make(chan answer)
	go func() { told <- ask(url+"&wait=120", now.etag) }()
	then()
	if next := <-told; next.err != nil || next.code != http.StatusOK || next.etag == now.etag || strings.Contains(next.text, theVIP.String()) {
		w.t.Errorf("who waits at %s is told %+v", url, next)
	}
}

// allows awaits that a host gives the text in a format, and gives it; empty: whatever it is.
func (w *world) allows(host, format, want string) (text string) {
	w.t.Helper()
	w.await(func() error {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		code, body, err := w.Lab.Fetch(ctx, lab.NodeName(w.everyNode()[0]), "http://"+host+":9873/allowlist?format="+format)
		text = string(body)
		if err == nil && (code != http.StatusOK || want != "" && text != want) {
			err = fmt.Errorf("%s answers %d: %q, want %q", host, code, text, want)
		}
		return err
	})
	return text
}
