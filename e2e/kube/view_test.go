package kube_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/kube"
)

// journal is a log kept in memory.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), text)
}

func newLog(t testing.TB) (*slog.Logger, *journal) {
	j := &journal{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", j.text.String())
		}
	})
	return slog.New(slog.NewTextHandler(j, nil)), j
}

// view is what a source delivered.
type view struct {
	*kube.Source
	log *journal

	mu    sync.Mutex
	all   []gateway.Snapshot
	stop  context.CancelFunc
	ended chan error
}

// watch runs a source until the test ends.
func watch(t testing.TB, kubeconfig, node string) *view {
	t.Helper()
	log, text := newLog(t)
	client, err := kube.Connect(kubeconfig, "sallyport-test", log)
	if err != nil {
		t.Fatal(err)
	}
	v := &view{Source: kube.NewSource(client, node), log: text, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	v.stop = cancel
	go func() { v.ended <- v.Run(ctx, v.deliver) }()
	t.Cleanup(func() {
		cancel()
		if err := <-v.ended; err != nil {
			t.Error(err)
		}
	})
	return v
}

func (v *view) deliver(s gateway.Snapshot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = append(v.all, s)
}

// since are the views delivered after the first n.
func (v *view) since(n int) []gateway.Snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.all[n:])
}

func (v *view) delivered() int { return len(v.since(0)) }

func (v *view) last() gateway.Snapshot {
	all := v.since(0)
	if len(all) == 0 {
		return gateway.Snapshot{}
	}
	return all[len(all)-1]
}

// problem finds what the source says of an object.
func (v *view) problem(object string) (string, bool) {
	for _, p := range append(v.Problems(), v.last().Problems...) {
		if p.Object == object {
			return p.Message, true
		}
	}
	return "", false
}

func names[T any](all []T, name func(T) string) string {
	out := make([]string, 0, len(all))
	for _, o := range all {
		out = append(out, name(o))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func routes(s gateway.Snapshot) string {
	return names(s.Routes, func(r gateway.Route) string { return r.Name })
}
func pods(s gateway.Snapshot) string {
	return names(s.Pods, func(p gateway.Pod) string { return p.Name + "@" + p.Node })
}
func nodes(s gateway.Snapshot) string {
	return names(s.Nodes, func(n gateway.Node) string { return n.Name })
}
