package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/trace"
)

// traceable has ports and an exception.
const traceable = `
vip: 192.0.2.10
namespaceSelector: {}
destinations:
- cidr: 203.0.113.0/24
  except: [203.0.113.7/32]
  ports: [{protocol: TCP, port: 8443}, {protocol: TCP, port: 9873}]
`

// slow is how long a fault may take to show, and to be mended, on a busy machine.
const slow = time.Minute

// tracer asks by the command, from the host of one of the nodes.
type tracer struct {
	*world
	http string
	kick int
}

func newTracer(t *testing.T, o lab.Options) *tracer {
	// The programs answer on every address, for one command to ask all; and with one
	// gateway no load of the machine moves the VIP while it is looked at.
	o.Nodes, o.GatewayNodes = 2, []int{1}
	o.GatewayArgs, o.AgentArgs = append(o.GatewayArgs, "--http", ":9871", "--timing", "wan"), []string{"--http", ":9872"}
	w := &tracer{world: start(t, o)}
	w.must(w.Manifests.WriteRoute("payments", traceable))
	var all []string
	for j := 1; j <= w.Options.Nodes; j++ {
		all = append(all, w.NodeIP(j).String()+":9872")
	}
	for _, j := range w.Options.GatewayNodes {
		all = append(all, w.NodeIP(j).String()+":9871")
	}
	w.http = strings.Join(all, ",")
	return w
}

// trace runs the command, whose exit status must be as its report says.
func (w *tracer) trace(pod, to string, args ...string) (trace.Report, error) {
	ns, err := w.Namespace("n1")
	if err != nil {
		return trace.Report{}, err
	}
	out, err := ns.Command(binary, append([]string{"trace", pod + ".default", to, "-o", "json", "--http", w.http}, args...)...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return trace.Report{}, err
	}
	var r trace.Report
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("trace %s %s printed %q: %w", pod, to, out, err)
	}
	status, want := 0, 0
	if exit != nil {
		status = exit.ExitCode()
	}
	switch {
	case r.First > 0:
		want = 1
	case !r.Asked:
		want = 2
	}
	if status != want {
		return r, fmt.Errorf("exit status %d, want %d for %+v", status, want, r)
	}
	return r, nil
}

// well demands a path on which nothing is wrong.
func (w *tracer) well(pod, to string) {
	w.t.Helper()
	w.must(lab.Await(slow, func() error {
		r, err := w.trace(pod, to)
		if err == nil && (r.First != 0 || !r.Asked) {
			err = fmt.Errorf("%s", said(r))
		}
		return err
	}))
}

// names breaks something, again for as long as it is mended faster than looked at,
// until trace says that just this is the first that is wrong, with a cure.
func (w *tracer) names(pod, to, step, found string, fault func() error) {
	w.t.Helper()
	w.must(lab.Await(slow, func() error {
		if fault != nil {
			_ = fault() // what is broken already cannot be broken again
		}
		r, err := w.trace(pod, to)
		if err != nil {
			return err
		}
		if r.First == 0 {
			return errors.New("nothing is wrong: " + said(r))
		}
		s := r.Steps[r.First-1]
		if s.Name != step || !strings.Contains(s.Found, found) || s.Cure == "" {
			return errors.New(said(r))
		}
		return nil
	}))
}

func said(r trace.Report) string {
	var b strings.Builder
	for i, s := range r.Steps {
		fmt.Fprintf(&b, "\n%d %s %s@%s: %s (%s)", i+1, s.Verdict, s.Name, s.Where, s.Found, s.Cure)
	}
	return b.String()
}

// mend has every program bring its view to the kernel again.
func (w *tracer) mend() {
	w.t.Helper()
	w.kick++
	w.must(w.Manifests.WriteNamespace("elsewhere", map[string]string{"kick": strconv.Itoa(w.kick)}, nil))
}

func TestTraceNamesTheFirstThingWrong(t *testing.T) {
	t.Parallel()
	w := newTracer(t, lab.Options{})
	const holder, node = 1, 2
	pod, to := selected(node), "203.0.113.9:8443"
	p, err := w.Pod(pod)
	w.must(err)
	w.well(pod, to)

	t.Run("decisions", func(t *testing.T) {
		w.names(unselected(node), to, "selection", "no route selects the pod", nil)
		w.names(pod, "203.0.113.7:8443", "destination", "203.0.113.7 is in except of 203.0.113.0/24", nil)
		w.names(pod, "203.0.113.9:8444", "destination", "port 8444/tcp is not among its ports 8443/tcp, 9873/tcp", nil)
		w.names(pod, "203.0.113.9:8443/udp", "destination", "port 8443/udp is not among", nil)
		w.names(pod, "198.51.100.1:8443", "destination", "198.51.100.1 is in none of its destinations 203.0.113.0/24", nil)
		w.names("nobody", to, "agent's view", "Pod default/nobody is not in it", nil)
		w.must(w.Manifests.WriteRoute("closed", strings.Replace(traceable, "{}", "{matchLabels: {team: shop}}", 1)))
		w.must(w.Annotate(unselected(node), "closed"))
		w.names(unselected(node), to, "access", "EgressRoute closed does not admit namespace default", nil)
		w.must(w.Annotate(unselected(node), "nowhere"))
		w.names(unselected(node), to, "selection", "names EgressRoute nowhere, which there is not", nil)
		w.must(w.Annotate(unselected(node), ""))
		w.must(w.Manifests.Remove("EgressRoute", "", "closed"))
	})

	on := func(j int, command ...string) func() error {
		return func() error {
			_, err := w.Exec(lab.NodeName(j), command[0], command[1:]...)
			return err
		}
	}
	for _, test := range []struct {
		name, step, found string
		fault             func() error
	}{
		{"set element missing", "sets", p.Addr.String() + " is missing", on(node, "nft", "delete", "element", "ip", "sally_node", "routes-sources", "{", p.Addr.String(), "}")},
		{"rules flushed", "rules", "is missing", on(node, "nft", "flush", "chain", "ip", "sally_node", "marked-out")},
		{"ip rule deleted", "ip rule", "add ip rule 95", on(node, "ip", "rule", "del", "priority", "95")},
		{"tunnel down", "tunnel", "device sally0 is down", on(node, "ip", "link", "set", "sally0", "down")},
		{"table flushed", "table", "add route 0.0.0.0/0", on(node, "ip", "route", "flush", "table", "all", "proto", "83")},
		{"admission element missing", "admission", p.Addr.String() + " is missing", on(holder, "nft", "delete", "element", "ip", "sally_gw", "routes-sources", "{", p.Addr.String(), "}")},
		{"gateway's SNAT gone", "SNAT", "snat to 192.0.2.10", on(holder, "nft", "flush", "chain", "ip", "sally_gw", "_source")},
		{"reply rule deleted", "reply rule", "add ip rule 95", on(holder, "ip", "rule", "del", "priority", "95")},
		{"reply route gone", "reply route", "add route " + p.Addr.String() + "/32 in table 5331", on(holder, "ip", "route", "flush", "table", "5331", "proto", "83")},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.names(pod, to, test.step, test.found, test.fault)
			w.mend()
			w.well(pod, to)
		})
	}
	kicked := func(change func() error) func() error {
		return func() error {
			err := change()
			w.mend()
			return err
		}
	}
	// What is another's stays until somebody takes it away.
	for _, test := range []struct {
		name, step, found string
		fault, mend       func() error
	}{
		{"another's ip rule goes first", "route", "by table 254 to device eth0", on(node, "ip", "rule", "add", "priority", "50", "lookup", "main"), on(node, "ip", "rule", "del", "priority", "50")},
		{"the agent cannot apply", "agent", "it could not apply the last view: route 0.0.0.0/0 in table 5308", kicked(on(node, "ip", "route", "replace", "default", "dev", "lo", "table", "5308", "proto", "static")), kicked(on(node, "ip", "route", "del", "default", "dev", "lo", "table", "5308"))},
		{"the holder cannot apply", "gateway", "it could not apply the last view: route " + p.Addr.String() + "/32 in table 5331", kicked(on(holder, "ip", "route", "replace", p.Addr.String(), "dev", "lo", "table", "5331", "proto", "static")), kicked(on(holder, "ip", "route", "del", p.Addr.String(), "dev", "lo", "table", "5331"))},
		{"no way out", "way out", "203.0.113.9", on(holder, "ip", "route", "add", "unreachable", "203.0.113.9/32"), on(holder, "ip", "route", "del", "unreachable", "203.0.113.9/32")},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.must(test.fault())
			w.names(pod, to, test.step, test.found, nil)
			w.must(test.mend())
			w.well(pod, to)
		})
	}
	t.Run("no holder", func(t *testing.T) {
		w.must(w.CutOutside(holder)) // it is asked from its own node
		w.names(selected(holder), to, "holder", "nobody holds 192.0.2.10: n1 says: ", nil)
		w.must(w.Heal())
		w.well(pod, to)
	})
	t.Run("another host claims the VIP", func(t *testing.T) {
		w.names(pod, to, "address", "on eth0 claims it as well", func() error { return w.Announce(node, theVIP) })
	})
	t.Run("a saved view", func(t *testing.T) {
		w.must(w.agent(node).Kill())
		_, err := w.StartAgent(node, "--source", "dir:"+w.Manifests.Dir+"-gone")
		w.must(err)
		w.must(lab.Await(slow, func() error {
			r, err := w.trace(pod, to)
			if err == nil && !slices.ContainsFunc(r.Steps, func(s trace.Step) bool {
				return s.Verdict == trace.Note && s.Name == "agent's view" && strings.Contains(s.Found, "an earlier run saved") && s.Cure != ""
			}) {
				err = errors.New(said(r))
			}
			return err
		}))
	})
}

// The other applier has sets and rules of its own kind.
func TestTraceReadsIptables(t *testing.T) {
	t.Parallel()
	w := newTracer(t, lab.Options{Netfilter: "iptables"})
	const holder, node = 1, 2
	pod, to := selected(node), "203.0.113.9:8443"
	p, err := w.Pod(pod)
	w.must(err)
	w.well(pod, to)
	sh := func(j int, script string) func() error {
		return func() error {
			_, err := w.Exec(lab.NodeName(j), "sh", "-c", script)
			return err
		}
	}
	for _, test := range []struct {
		name, step, found string
		fault             func() error
	}{
		{"set members missing", "sets", p.Addr.String() + " is missing", sh(node, "for s in $(ipset list -n | grep ^sally_node4); do ipset -exist del $s "+p.Addr.String()+"; done")},
		{"rules flushed", "rules", "is missing", sh(node, "iptables -t mangle -F SALLY-NODE-MARKED-OUT")},
		{"gateway's SNAT gone", "SNAT", "SNAT --to-source 192.0.2.10", sh(holder, "iptables -t nat -F SALLY-GW-SOURCE")},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.names(pod, to, test.step, test.found, test.fault)
			w.mend()
			w.well(pod, to)
		})
	}
}

// The reflector is the program itself, on the partner's side.
func TestTraceProbes(t *testing.T) {
	t.Parallel()
	w := newTracer(t, lab.Options{})
	ns, err := w.Namespace(lab.PartnerHost)
	w.must(err)
	reflector := ns.Command(binary, "reflect", "--listen", "203.0.113.9:9873")
	w.must(reflector.Start())
	t.Cleanup(func() {
		_ = reflector.Process.Kill()
		_ = reflector.Wait()
	})
	to := "203.0.113.9:9873"
	w.well(selected(2), to)
	probe := func(pod, found string) {
		t.Helper()
		w.must(lab.Await(slow, func() error {
			r, err := w.trace(pod, to, "--probe", "--netns", w.FullName(pod))
			if err != nil {
				return err
			}
			if last := r.Steps[len(r.Steps)-1]; last.Name != "probe" || last.Found != found {
				return errors.New(said(r))
			}
			return nil
		}))
	}
	probe(selected(2), "the outside saw 192.0.2.10, the VIP")
	probe(unselected(2), "the outside saw "+w.NodeIP(2).String())
}
