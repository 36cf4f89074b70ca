package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/chromium"
	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/dashboard"
	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/e2e/prometheus"
)

// scraped is how often a Prometheus scrapes and judges.
const scraped = time.Second

// token of the status page for who is not on a gateway's host.
const token = "correct-horse-battery-staple"

// observed are the settings of who watches with the Prometheus operator and Grafana.
var observed = []string{
	"http.expose=true", "http.tokenSecret=page", "podMonitor.enabled=true", "podMonitor.interval=" + scraped.String(),
	"alerts.enabled=true", "grafanaDashboard.enabled=true",
}

// kept is a kind of the Prometheus operator, whose objects the API server keeps as they are.
func kept(kind, plural string) string {
	return fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[2]s.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: %[1]s, plural: %[2]s}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
`, kind, plural)
}

// operators are what the chart finds where somebody watches with the Prometheus operator.
var operators = kept("PodMonitor", "podmonitors") + kept("PrometheusRule", "prometheusrules") + `
apiVersion: v1
kind: Namespace
metadata: {name: ` + namespace + `}
---
apiVersion: v1
kind: Secret
metadata: {name: page, namespace: ` + namespace + `}
stringData: {token: ` + token + `}
`

// exclusive is a route whose destination is its own pods' alone: what others send is counted.
const exclusive = `apiVersion: sallyport.dev/v1alpha1
kind: EgressRoute
metadata: {name: guarded}
spec:
  vip: 192.0.2.10
  namespaceSelector: {}
  destinations: [{cidr: 198.51.100.0/24}]
  exclusive: true
`

// quiet are panels that are right to be empty in this scenario.
var quiet = map[string]string{
	"Ports run out in": "no destination's use grows",
	"Problems":         "there need be none",
}

// monitor is a Prometheus that watches the cluster by the objects that the chart made.
type monitor struct {
	*prometheus.Server
	w     *world
	since time.Time
	well  time.Time // since when it found nothing wrong
	rules []rule
}

// rule as the chart has it.
type rule struct{ Alert, Expr string }

// monitored starts one and demands that it finds all well.
func (w *world) monitored() *monitor {
	w.t.Helper()
	w.apply(exclusive)
	dir := w.t.TempDir()
	pods, rules := filepath.Join(dir, "pods.json"), filepath.Join(dir, "rules.yaml")
	w.must(prometheus.WritePods(pods, []byte(w.kubectl("get", "pods", "-A", "-o", "json"))))
	w.must(os.WriteFile(rules, []byte(w.kubectl("get", "prometheusrule", "sallyport", "-n", namespace, "-o", "jsonpath={.spec}")), 0o600))
	var pm prometheus.PodMonitor
	w.must(json.Unmarshal([]byte(w.kubectl("get", "podmonitor", "sallyport", "-n", namespace, "-o", "json")), &pm))
	scrape, err := pm.Scrape(pods)
	w.must(err)
	ns, err := w.Lab.Namespace(cluster.ControlPlane)
	w.must(err)
	m := &monitor{w: w, since: time.Now(), Server: prometheus.Test(w.t, prometheus.Options{
		Command: ns.Command, Scrape: scrape, Rules: []string{rules}, Every: scraped,
		Fetch: func(ctx context.Context, url string) (int, []byte, error) {
			return w.Lab.Fetch(ctx, cluster.ControlPlane, url)
		},
	})}
	for _, program := range []string{"gateway", "agent"} {
		m.until(fmt.Sprintf(`sum(up{job="sallyport/sallyport",app_kubernetes_io_component=%q}) == %d`, program, len(w.everyNode())))
	}
	m.until(`min(count_over_time(up[5m])) >= 5`)
	m.until(fmt.Sprintf(`count(sallyport_exclusive_dropped_packets_total{namespace="default"}) == %d`, len(w.everyNode())))
	m.judges(rules)
	m.nothing("")
	m.well = time.Now()
	return m
}

// judges demands that every rule of the file is judged, and can be.
func (m *monitor) judges(file string) {
	m.w.t.Helper()
	text, err := os.ReadFile(file)
	m.w.must(err)
	var spec struct{ Groups []struct{ Rules []rule } }
	m.w.must(json.Unmarshal(text, &spec))
	judged, err := m.Rules()
	m.w.must(err)
	if len(spec.Groups) != 1 || len(judged) != len(spec.Groups[0].Rules) || len(judged) == 0 {
		m.w.t.Fatalf("of %+v only these are judged: %+v", spec, judged)
	}
	m.rules = spec.Groups[0].Rules
	for i, j := range judged {
		if j.Name != m.rules[i].Alert || j.Health != "ok" || j.LastError != "" || j.LastEvaluation.Before(m.since) {
			m.w.t.Errorf("%s is judged as %+v", m.rules[i].Alert, j)
		}
	}
}

// knows demands that somebody gave the metrics that an expression asks for: those of a failover
// come with one. Without a problem there is no series of problems.
func (m *monitor) knows(where, expr string) {
	m.w.t.Helper()
	given, err := m.Metrics()
	m.w.must(err)
	for _, name := range regexp.MustCompile(`sallyport_\w+`).FindAllString(expr, -1) {
		if !slices.Contains(given, name) && name != "sallyport_problems" {
			m.w.t.Errorf("%s asks for %s, which nobody gives", where, name)
		}
	}
}

// until waits for an expression to give something.
func (m *monitor) until(expr string) []prometheus.Series {
	m.w.t.Helper()
	var found []prometheus.Series
	m.w.await(func() (err error) {
		if found, err = m.Query(expr); err == nil && len(found) == 0 {
			err = fmt.Errorf("nothing for %s", expr)
		}
		return err
	})
	return found
}

// nothing awaits that no alert fires or is about to, but for those that the matchers leave out.
func (m *monitor) nothing(but string) {
	m.w.t.Helper()
	m.w.await(func() error {
		alerts, err := m.Query(`ALERTS{` + but + `}`)
		if err == nil && len(alerts) > 0 {
			err = fmt.Errorf("alerts: %+v", alerts)
		}
		return err
	})
}

// misses awaits that the alert of a gateway that is missing is about to fire, by the heir, and of the
// two programs that Prometheus does not reach.
func (m *monitor) misses(heir int) {
	m.w.t.Helper()
	m.until(fmt.Sprintf(`ALERTS{alertname="SallyportGatewayMissing",alertstate=~"pending|firing",instance="%s:9871"}`, asNode(pod{node: heir})))
	m.until(`count(up == 0) == 2`)
	m.until(`count(ALERTS{alertname="SallyportSilent",alertstate="pending"}) == 2`)
}

// tells demands of the heir's metrics what an operator asks after a failover: how long it took and
// why, for how long nobody held, how near the lease is to its end, whether the standbys follow,
// and which destination has most of the VIP's source ports.
func (m *monitor) tells(heir int) {
	m.w.t.Helper()
	at := fmt.Sprintf(`vip=%q,instance="%s:9871"`, theVIP, m.w.Lab.NodeIP(heir))
	towards := fmt.Sprintf(`destination="%s:%d/tcp",%s`, partner, lab.TCPPort, at)
	for _, expr := range []string{
		`0 < sallyport_vip_last_failover_seconds{reason="no heartbeat for a lease",` + at + `} < ` + fmt.Sprint(time.Since(m.well).Seconds()),
		fmt.Sprintf(`sallyport_vip_last_failover_timestamp_seconds{%s} >= %d`, at, m.well.Unix()),
		`sallyport_vip_without_holder_seconds_total{` + at + `} > 0`,
		`histogram_quantile(0.5, rate(sallyport_vip_lease_margin_ratio_bucket{` + at + `}[10s])) > 0`,
		fmt.Sprintf(`count(sallyport_replication_in_step{%[1]s} == 1) == %[2]d and count(sallyport_replication_lag_seconds{%[1]s} < 60) == %[2]d`, at, len(m.w.everyNode())-1),
		fmt.Sprintf(`topk(1, sallyport_snat_ports_used{%s}) > 0 < on (destination) sallyport_snat_ports_usable{%s}`, at, towards),
		`sallyport_snat_ports_exhausted_in_seconds{` + towards + `} > 0`,
	} {
		m.until(expr)
	}
}

// keptOut has a pod send to a destination that is others' alone, and demands that this is counted
// for its namespace, and that the alert of it is about to fire.
func (m *monitor) keptOut(p pod) {
	m.w.t.Helper()
	_, err := m.w.Run(p.node, "sh", "-ec", fmt.Sprintf(`for n in /run/netns/*; do
		nsenter --net=$n ip -4 address | grep -qF ' %s/' || continue
		if nsenter --net=$n ping -qc 1 -W 1 198.51.100.1 >&2; then exit 1; else exit 0; fi
	done; exit 2`, p.addr))
	m.w.must(err)
	m.until(fmt.Sprintf(`sallyport_exclusive_dropped_packets_total{namespace="default",instance="%s:9872"} > 0`, m.w.Lab.NodeIP(p.node)))
	m.until(`ALERTS{alertname="SallyportKeptOut",alertstate="pending",namespace="default"}`)
}

// mended awaits that no alert is left, and demands that none came but those of a gateway that
// dies. Others may be about to: of packets that were refused then, which are looked back on for
// minutes, of gateways that a busy machine did not let answer in time, or keep up with the holder, and
// of the view that a node saved before it died.
func (m *monitor) mended(heir int) {
	m.w.t.Helper()
	m.until(fmt.Sprintf(`sum(up) == %d`, 2*len(m.w.everyNode())))
	m.tells(heir)
	m.nothing(`alertname!="SallyportPacketsRefused"`)
	for _, r := range m.rules {
		m.knows(r.Alert, r.Expr)
	}
	came, err := m.Query(fmt.Sprintf(`count by (alertname, alertstate) (last_over_time(ALERTS[%dms]))`, time.Since(m.well).Milliseconds()))
	m.w.must(err)
	due := []string{"SallyportGatewayMissing", "SallyportNoHolder", "SallyportProblem"}
	near := []string{"SallyportPacketsRefused", "SallyportNoGateway", "SallyportViewOld", "SallyportSilent", "SallyportReplicationLags"}
	for _, a := range came {
		name, state := a.Labels["alertname"], a.Labels["alertstate"]
		if slices.Contains(due, name) || slices.Contains(near, name) && state == "pending" {
			m.w.t.Logf("%s was %s", name, state)
		} else {
			m.w.t.Errorf("%s was %s", name, state)
		}
	}
}

// drawn demands that each query of the dashboard that the chart installed is answered from the
// cluster, and leaves a picture among the test's artefacts.
func (m *monitor) drawn(b *chromium.Browser) {
	m.w.t.Helper()
	dir := m.w.t.ArtifactDir()
	file := filepath.Join(dir, "dashboard.json")
	m.w.must(os.WriteFile(file, []byte(m.w.kubectl("get", "configmap", "sallyport-dashboard", "-n", namespace, "-o", `jsonpath={.data.sallyport\.json}`)), 0o600))
	d, err := dashboard.Read(file, map[string]string{"job": "sallyport/sallyport", "__rate_interval": "5s"})
	m.w.must(err)
	span := dashboard.Span{From: m.since.Truncate(scraped), To: time.Now().Add(scraped).Truncate(scraped), Step: scraped}
	for _, p := range d.Panels {
		for _, t := range p.Targets {
			m.knows(p.Title, t.Expr)
		}
	}
	empty, err := d.Empty(m, span)
	m.w.must(err)
	for title, exprs := range empty {
		if quiet[title] == "" {
			m.w.t.Errorf("panel %q is empty: %s", title, strings.Join(exprs, ", "))
		}
	}
	seen, err := dashboard.Look(b, dir, d, m, span)
	m.w.must(err)
	if seen.Lines < 25 {
		m.w.t.Errorf("only %d lines are drawn", seen.Lines)
	}
	m.w.must(os.WriteFile(filepath.Join(dir, "dashboard.png"), seen.Picture, 0o600))
}
