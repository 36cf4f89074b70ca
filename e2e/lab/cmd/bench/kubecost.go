package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/sallyport/sallyport/e2e/lab"
)

// processorTime is what a process has used of processors since its start.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
	}
	// The name in parentheses may have blanks; utime and stime are the 14th and 15th (proc(5)).
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks uint64
	for _, i := range []int{11, 12} {
		if len(fields) <= i {
			return 0, fmt.Errorf("read the processor time of process %d: %q is cut short", pid, text)
		}
		n, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100, nil // USER_HZ is 100
}

// applies counts how often a program has brought a view into the kernel.
func (w *world) applies(ctx context.Context, role lab.Role) (float64, error) {
	_, body, err := w.Get(ctx, role, 1, "/metrics")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(body), "\nsallyport_apply_seconds_count ")
	number, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("read the metrics of the %s: %w", role, err)
	}
	return n, nil
}

// calls are counted by what was asked: "patch egressroutes/status".
type calls map[string]int

func (c calls) sum() (sum int) {
	for _, n := range c {
		sum += n
	}
	return sum
}

func (c calls) String() string {
	if len(c) == 0 {
		return "none"
	}
	var each []string
	for _, what := range slices.Sorted(maps.Keys(c)) {
		each = append(each, fmt.Sprintf("%d × %s", c[what], what))
	}
	return strings.Join(each, ", ")
}

// callsSince reads what accounts have asked from an offset of the audit log on.
func callsSince(log string, offset int64) (map[string]calls, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	all := map[string]calls{}
	for d := json.NewDecoder(bufio.NewReader(f)); ; {
		var e auditv1.Event
		if err := d.Decode(&e); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if e.Stage == auditv1.StageResponseStarted || e.ObjectRef == nil { // a watch has two stages
			continue
		}
		what := e.Verb + " " + e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			what += "/" + e.ObjectRef.Subresource
		}
		if all[e.User.Username] == nil {
			all[e.User.Username] = calls{}
		}
		all[e.User.Username][what]++
	}
}

func kubeText(pods int, p *population, costs map[lab.Role]*kubeCost) string {
	rows := [][]string{{"", "agent", "gateway"}}
	add := func(title string, cell func(*kubeCost) string) {
		rows = append(rows, []string{title, cell(costs[lab.Agent]), cell(costs[lab.Gateway])})
	}
	number := func(format string, of func(*kubeCost) float64) func(*kubeCost) string {
		return func(c *kubeCost) string { return fmt.Sprintf(format, of(c)) }
	}
	spread := func(t trials) string {
		return fmt.Sprintf("%.0f / %.0f / %.0f", 1e3*t.median(), 1e3*t.quantile(.99), 1e3*t.quantile(1))
	}
	add("start of the process to ready, s", number("%.1f", func(c *kubeCost) float64 { return c.ready.Seconds() }))
	add("resident before the changes, MB", number("%.0f", func(c *kubeCost) float64 { return c.before }))
	add("resident after them, MB", number("%.0f", func(c *kubeCost) float64 { return c.resident }))
	add("resident at most, MB", number("%.0f", func(c *kubeCost) float64 { return c.peak }))
	add("processors in use while pods change", number("%.2f", func(c *kubeCost) float64 { return c.processors }))
	add("views applied a second", number("%.1f", func(c *kubeCost) float64 { return c.applies / p.took.Seconds() }))
	add("processor time for each of them, ms", number("%.0f", func(c *kubeCost) float64 {
		return 1e3 * c.processors * p.took.Seconds() / max(1, c.applies)
	}))
	add("requests to the API server a second", number("%.2f", func(c *kubeCost) float64 { return float64(c.asked.sum()) / p.took.Seconds() }))
	add("new pods measured", func(c *kubeCost) string { return strconv.Itoa(len(c.fromRequest)) })
	add("address sent to the API server until in the kernel, ms, median / p99 / longest", func(c *kubeCost) string { return spread(c.fromRequest) })
	add("the server's answer until in the kernel, ms, median / p99 / longest", func(c *kubeCost) string { return spread(c.fromAnswer) })
	changes := float64(p.changed) / p.took.Seconds()
	text := fmt.Sprintf(`## Scale in Kubernetes

A real API server and etcd without kubelets: %d pods, each with a route, on %d nodes, %d routes of %d VIPs in %d namespaces. One gateway, which
has all of it, and one agent, on one of the nodes; with the chart's rights. Then %.0f changes a second for %v: of ten, three pods that come, three that go, two that change their
route, two of which nothing matters to Sallyport. A fifth of the pods that come are on the agent's node, which is a hundred times its share. API server,
etcd and whoever makes the changes are on the same processors.

%s
What they asked of the API server meanwhile: agent: %s; gateway: %s.

`, pods, kubeNodes, kubeRoutes, kubeVIPs, kubeNamespaces, changes, p.took.Round(time.Second), table(rows), costs[lab.Agent].asked, costs[lab.Gateway].asked)
	for _, role := range []lab.Role{lab.Agent, lab.Gateway} {
		p99 := costs[role].fromRequest.quantile(.99)
		text += verdict(fmt.Sprintf("%s, address to kernel, p99, ms", role), 1e3*p99, 250, p99 <= .25, "%.0f")
	}
	return text
}
