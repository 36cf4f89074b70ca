package k8s

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway/page"
)

// watched demands of `kubectl sallyport dashboard` that it opens the way to the page of
// the gateway that is asked for, that the page is told what that gateway sees, that
// it is gone with the command, and that other nodes have no way to it.
func (w *world) watched() {
	w.t.Helper()
	w.plugin()
	for _, j := range w.everyNode() {
		d := w.dashboard(lab.NodeName(j))
		w.await(func() error {
			document, err := d.document()
			if err == nil && !strings.Contains(document, "<title>Sallyport</title>") {
				err = fmt.Errorf("at %s is no status page:\n%s", d.url, document)
			}
			return err
		})
		w.await(func() error {
			v, err := d.view()
			held := w.holder(w.everyNode()...)
			switch {
			case err != nil:
				return err
			case v.Node != lab.NodeName(j):
				return fmt.Errorf("%s shows the gateway of %s, n%d was asked for", d.url, v.Node, j)
			case len(v.VIPs) == 1 && v.VIPs[0].Held != (v.VIPs[0].Holder == v.Gateway): // also of a VIP that moves
				return fmt.Errorf("%s is held by itself %t, and by %s", v.Gateway, v.VIPs[0].Held, v.VIPs[0].Holder)
			case len(v.VIPs) != 1 || v.VIPs[0].VIP != theVIP || v.VIPs[0].Held != (j == held) || len(v.VIPs[0].Voters) != len(w.everyNode()):
				return fmt.Errorf("n%d holds %s, and n%d shows %+v", held, theVIP, j, v.VIPs)
			case len(v.Routes.First) != 1 || v.Routes.First[0].Name != "payments" || v.Routes.First[0].Pods != len(w.everyNode()):
				return fmt.Errorf("n%d shows the routes %+v", j, v.Routes)
			case j == held && (v.Routes.First[0].Bytes == 0 || len(v.VIPs[0].Standbys) != len(w.everyNode())-1):
				return fmt.Errorf("n%d holds, and shows %+v of the route, and the standbys %+v", j, v.Routes.First[0], v.VIPs[0].Standbys)
			case len(v.Nodes.First) != len(w.everyNode()) || len(v.VIPs[0].Spells) == 0 || v.Problems.First == nil:
				return fmt.Errorf("n%d shows the nodes %+v, the holders %+v and the problems %+v", j, v.Nodes, v.VIPs[0].Spells, v.Problems)
			}
			return nil
		})
		other := lab.NodeName(w.Lab.Others(j)[0])
		if code, _, err := w.Lab.Fetch(w.ctx, other, fmt.Sprintf("http://%s:9871/", w.Lab.NodeIP(j))); !errors.Is(err, syscall.ECONNREFUSED) {
			w.t.Errorf("the page of n%d from %s: %d %v, want a connection refused", j, other, code, err)
		}
		w.must(d.end())
		if _, err := d.document(); !errors.Is(err, syscall.ECONNREFUSED) {
			w.t.Errorf("%s after its command: %v", d.url, err)
		}
	}
}

// forward is a command that runs, and a browser on the same host.
type forward struct {
	url     string
	browser *http.Client
	ctx     context.Context
	end     func() error // by Ctrl-C
}

// dashboard opens the way to a gateway.
func (w *world) dashboard(gateway string) forward {
	w.t.Helper()
	cmd := w.API.Shell(w.API.Tool("kubectl"), "sallyport", "dashboard", "--kubeconfig", w.API.Kubeconfig, "--gateway", gateway)
	out, err := cmd.StdoutPipe()
	w.must(err)
	var said strings.Builder
	cmd.Stderr = &said
	w.must(cmd.Start())
	ended := make(chan error, 1)
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { ended <- cmd.Wait() }()
	if err != nil {
		w.t.Fatalf("kubectl sallyport dashboard prints no URL: %v: %s", <-ended, said.String())
	}
	w.t.Cleanup(func() { _ = cmd.Process.Kill() }) // of a scenario that failed
	return forward{strings.TrimSpace(line), &http.Client{Transport: &http.Transport{DialContext: w.API.Dial, DisableKeepAlives: true}}, w.ctx, func() error {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			return fmt.Errorf("end kubectl sallyport dashboard: %w", err)
		}
		if err := <-ended; err != nil {
			return fmt.Errorf("kubectl sallyport dashboard, after Ctrl-C: %w: %s", err, said.String())
		}
		return nil
	}}
}

// open asks the page's host; the caller closes what it says.
func (d forward) open(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.browser.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s: %s", req.URL, resp.Status, text)
	}
	return resp.Body, nil
}

// document is the page itself.
func (d forward) document() (string, error) {
	ctx, cancel := context.WithTimeout(d.ctx, patience)
	defer cancel()
	body, err := d.open(ctx, "")
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	return string(text), err
}

// view is the first that the page is told.
func (d forward) view() (page.View, error) {
	var message struct{ View page.View }
	ctx, cancel := context.WithTimeout(d.ctx, patience)
	defer cancel()
	body, err := d.open(ctx, "events")
	if err != nil {
		return message.View, err
	}
	defer body.Close()
	line, err := bufio.NewReader(body).ReadString('\n')
	if err != nil {
		return message.View, fmt.Errorf("%sevents ends before the page was told anything: %w", d.url, err)
	}
	data, is := strings.CutPrefix(line, "data: ")
	if !is {
		return message.View, fmt.Errorf("%sevents begins with %q", d.url, line)
	}
	return message.View, json.Unmarshal([]byte(data), &message)
}
