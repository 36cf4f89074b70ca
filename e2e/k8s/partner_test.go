package k8s

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

// The partner's own firewall: one of its addresses is for who has a VIP, the other for
// the cluster's nodes, and it is told who they are by nobody but the cluster.
var partnersFirewall = fmt.Sprintf(`table inet firewall
delete table inet firewall
table inet firewall {
	set partners4 { type ipv4_addr; comment "sallyport"; }
	set cluster4 { type ipv4_addr; comment "sallyport"; }
	chain input {
		type filter hook input priority 10;
		ip daddr %s ip saddr != @partners4 drop
		ip daddr %s tcp dport %d ip saddr != @cluster4 reject with tcp reset
	}
}`, partner, public, lab.HTTPPort)

// guarded is the partner's host with `sallyport allowlist sync`, one for each set.
type guarded struct {
	*world
	rules string              // file
	args  map[string][]string // by set
	runs  map[string]*exec.Cmd
	logs  map[string]*bytes.Buffer
}

// in is the same in a part of the scenario.
func (g *guarded) in(w *world) *guarded {
	part := *g
	part.world = w
	return &part
}

// guard gives the partner a firewall that admits nobody but who the cluster names.
func (w *world) guard() *guarded {
	w.t.Helper()
	w.kubectl("create", "serviceaccount", "partner")
	w.apply(cluster.SeeNodes("{kind: ServiceAccount, name: partner, namespace: default}"))
	dir := w.t.TempDir()
	kubeconfig, rules := filepath.Join(dir, "nodes.kubeconfig"), filepath.Join(dir, "nftables.conf")
	w.must(w.API.Account(w.ctx, "default", "partner", kubeconfig))
	w.must(os.WriteFile(rules, []byte(partnersFirewall), 0o644))
	// From the address that the lab lets anybody answer.
	_, err := w.Lab.Exec(lab.PartnerHost, "ip", "route", "replace", "192.0.2.0/24", "via", "203.0.113.1", "src", public.String())
	w.must(err)
	var gateways []string
	for _, j := range w.everyNode() {
		gateways = append(gateways, fmt.Sprintf("http://%s:9873", w.Lab.NodeIP(j)))
	}
	g := &guarded{world: w, rules: rules, runs: map[string]*exec.Cmd{}, logs: map[string]*bytes.Buffer{}, args: map[string][]string{
		"partners": {"--url", strings.Join(gateways, ","), "--within", "192.0.2.0/24"},
		"cluster":  {"--nodes", "--kubeconfig", kubeconfig},
	}}
	g.boot()
	for set, args := range g.args {
		g.logs[set] = &bytes.Buffer{}
		g.args[set] = append(args, "--nft", "inet/firewall/"+set, "--state-dir", filepath.Join(dir, set))
		g.sync(set)
	}
	w.t.Cleanup(func() {
		for set := range g.runs {
			g.stop(set)
			if w.t.Failed() {
				w.t.Logf("sync of %s said:\n%s", set, g.logs[set])
			}
		}
	})
	return g
}

// boot loads the firewall anew, its sets empty.
func (g *guarded) boot() {
	g.t.Helper()
	_, err := g.Lab.Exec(lab.PartnerHost, "nft", "-f", g.rules)
	g.must(err)
}

func (g *guarded) sync(set string) {
	g.t.Helper()
	ns, err := g.Lab.Namespace(lab.PartnerHost)
	g.must(err)
	cmd := ns.Command(g.program(), append([]string{"allowlist", "sync"}, g.args[set]...)...)
	cmd.Stdout, cmd.Stderr = g.logs[set], g.logs[set]
	g.must(cmd.Start())
	g.runs[set] = cmd
}

func (g *guarded) stop(set string) {
	_ = g.runs[set].Process.Signal(syscall.SIGTERM)
	if err := g.runs[set].Wait(); err != nil {
		g.t.Errorf("sync of %s ended: %v", set, err)
	}
	delete(g.runs, set)
}

// holds awaits that a set is this.
func (g *guarded) holds(name string, want ...string) {
	g.t.Helper()
	since := time.Now()
	set := allowlist.Set{Sets: allowlist.Sets{Family: "inet", Table: "firewall", Name: name}, Version: 4}
	g.await(func() error {
		out, err := g.Lab.Exec(lab.PartnerHost, set.Listing()[0], set.Listing()[1:]...)
		if err != nil {
			return err
		}
		found, err := set.Parse([]byte(out))
		var got []string
		for a := range found.Addresses {
			got = append(got, a.String())
		}
		if slices.Sort(got); err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%s holds %v, want %v", name, got, want)
		}
		return err
	})
	g.t.Logf("%s holds %v, %s after it was asked first", name, want, time.Since(since).Round(time.Millisecond))
}

// nodes awaits that the list of nodes has these, and that of all whose power is on they,
// and no others, can connect to the partner.
func (g *guarded) nodes(on []int, listed ...int) {
	g.t.Helper()
	var want []string
	for _, j := range listed {
		want = append(want, lab.OutsideAddr(j).String())
	}
	g.holds("cluster", want...)
	for _, j := range on {
		g.await(func() error {
			ctx, cancel := context.WithTimeout(g.ctx, 5*time.Second)
			defer cancel()
			code, body, err := g.Lab.Fetch(ctx, lab.NodeName(j), fmt.Sprintf("http://%s:%d/", public, lab.HTTPPort))
			seen := strings.TrimSpace(string(body))
			switch admitted := err == nil && code == http.StatusOK; {
			case admitted != slices.Contains(listed, j):
				return fmt.Errorf("n%d is admitted: %t (%d, %v); listed are %v", j, admitted, code, err, listed)
			case admitted && seen != lab.OutsideAddr(j).String():
				return fmt.Errorf("n%d connects as %s", j, seen)
			}
			return nil
		})
	}
}
