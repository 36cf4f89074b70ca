package e2e

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/e2e/chromium"
	"github.com/sallyport/sallyport/e2e/dashboard"
	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/e2e/prometheus"
)

const (
	monitor       = "monitor"
	alertsFile    = "../charts/sallyport/files/alerts.yaml"
	dashboardFile = "../charts/sallyport/files/dashboard.json"
	operations    = "../docs/operations.md"
	scraped       = time.Second
)

// watched is a world that a Prometheus on a host of its own looks at.
type watched struct {
	*world
	*prometheus.Server
	since time.Time
}

// startWatched has three gateways, and on the fourth node an agent only. One failover
// happens where one is made, whatever else the machine does.
func startWatched(t *testing.T) *watched {
	t.Helper()
	prometheus.Need(t, "prometheus")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("correct-horse-battery-staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, lab.Options{
		Nodes: 4, GatewayNodes: []int{1, 2, 3}, AgentArgs: []string{"--http", "0.0.0.0:9872"},
		GatewayArgs: []string{"--timing", "wan", "--http", "0.0.0.0:9871", "--http-token-file", token, "--audit-log", filepath.Join(t.TempDir(), "audit")},
	})
	w.must(w.Manifests.WriteRoute("payments", payments+"audit: true\n"))
	w.must(w.Manifests.WriteRoute("public", publicRoute+"exclusive: true\n"))
	w.must(w.AddHost(monitor, netip.MustParseAddr("192.0.2.200")))
	ns, err := w.Namespace(monitor)
	w.must(err)
	o := prometheus.Options{
		Command: ns.Command, Rules: []string{alertsFile}, Every: scraped,
		Fetch: func(ctx context.Context, url string) (int, []byte, error) { return w.Fetch(ctx, monitor, url) },
	}
	var targets []string
	for j := 1; j <= w.Options.Nodes; j++ {
		targets = append(targets, fmt.Sprintf("%s:9872", w.NodeIP(j)))
	}
	for _, j := range w.Options.GatewayNodes {
		targets = append(targets, fmt.Sprintf("%s:9871", w.NodeIP(j)))
	}
	o.Scrape = prometheus.Static("sallyport", targets)
	w.must(w.StartAll())
	w.awaitReady()
	return &watched{world: w, since: time.Now(), Server: prometheus.Test(t, o)}
}

// until waits for an expression to give something, as one with a comparison does only
// when that holds.
func (w *watched) until(expr string) []prometheus.Series {
	w.t.Helper()
	var found []prometheus.Series
	w.must(lab.AwaitEvery(w.t.Context(), scraped/5, 2*time.Minute, func() (err error) {
		if found, err = w.Query(expr); err == nil && len(found) == 0 {
			err = fmt.Errorf("nothing for %s", expr)
		}
		return err
	}))
	return found
}

func (w *watched) untilAlert(name, state string) {
	w.t.Helper()
	w.until(fmt.Sprintf(`ALERTS{alertname=%q,alertstate=%q}`, name, state))
}

// What an operator looks at and is woken by, asked of a real Prometheus over a failover,
// a host that claims the VIP as well, and an outage.
func TestAPrometheusSeesWhatHappens(t *testing.T) {
	t.Parallel()
	w := startWatched(t)
	tr := w.startTraffic(1)
	w.awaitSilent(unselected(1), lab.PublicAddr) // kept out
	w.until(`sum(up) == 7`)
	samples := 15
	if *update {
		samples = 40
	}
	w.until(fmt.Sprintf(`min(count_over_time(up[10m])) >= %d`, samples))
	dead := w.holder()
	w.until(fmt.Sprintf(`sallyport_snat_ports_used{instance="%s:9871"} > 0`, w.NodeIP(dead)))

	killed := time.Now()
	w.must(w.gateway(dead).Kill())
	heir := w.awaitHolder(others(w.Options.GatewayNodes, dead)...)
	w.flowsAgain(tr, time.Now())
	w.until(`sum(up) == 6`)
	w.restartGateway(dead)
	w.until(`sum(up) == 7`)
	w.told(killed, heir)

	t.Run("another host claims the VIP", func(t *testing.T) {
		_, err := w.Exec("n4", "ip", "addr", "add", theVIP.String()+"/32", "dev", "eth0")
		w.must(err)
		w.must(w.Announce(4, theVIP))
		w.until(`sum(sallyport_vip_duplicate_owners_total) > 0`)
		w.untilAlert("SallyportDuplicateOwner", "firing")
		w.untilAlert("SallyportProblem", "pending")
	})
	t.Run("metrics", func(t *testing.T) { w.metricsAreThoseOfTheGuide(t) })
	t.Run("panels and alerts", func(t *testing.T) { w.everythingIsAnswered(t) })
	t.Run("picture", func(t *testing.T) { w.draw(t) })
	w.end(tr)
	t.Run("nobody holds", func(t *testing.T) {
		if fires, err := w.Query(`ALERTS{alertname="SallyportNoHolder",alertstate="firing"}`); err != nil || len(fires) > 0 {
			t.Errorf("SallyportNoHolder fires while there is a holder: %v %v", fires, err)
		}
		away := others(w.Options.GatewayNodes, 1)
		for _, j := range away {
			w.must(w.gateway(j).Kill())
		}
		w.untilAlert("SallyportNoHolder", "firing")
		for _, j := range away {
			_, err := w.StartGateway(j)
			w.must(err)
		}
		w.until(`sum(sallyport_vip_held) == 1 unless on () ALERTS{alertname="SallyportNoHolder"}`)
	})
}

func (w *watched) end(tr *traffic) {
	for i := range tr.echo {
		tr.echo[i].Stop()
		tr.connects[i].Stop()
		tr.streams[i].Stop()
	}
	w.noLeak()
}

// told is what the metrics must say of a failover to the heir.
func (w *watched) told(killed time.Time, heir int) {
	w.t.Helper()
	at := fmt.Sprintf("instance=\"%s:9871\"", w.NodeIP(heir))
	one := func(expr string) float64 {
		w.t.Helper()
		found := w.until(expr)
		if len(found) != 1 {
			w.t.Fatalf("%s is %v, want one value", expr, found)
		}
		return found[0].Value.Value
	}
	within := func(what string, got, least, most float64) {
		w.t.Helper()
		if !(got >= least && got <= most) {
			w.t.Errorf("%s is %v, want %v to %v", what, got, least, most)
		}
	}
	since := time.Since(killed).Seconds()
	within("the last failover's duration", one(`sallyport_vip_last_failover_seconds{reason="no heartbeat for a lease",`+at+`}`), 0.001, since)
	within("its moment", one(`sallyport_vip_last_failover_timestamp_seconds{`+at+`}`), float64(killed.Unix()), float64(time.Now().Unix()+1))
	within("the changes by that reason", one(`increase(sallyport_vip_transitions_total{reason="no heartbeat for a lease",`+at+`}[10m]) > 0`), 0.5, 20)
	within("the time without a holder", one(`sallyport_vip_without_holder_seconds_total{`+at+`} > 0`), 0.000001, time.Since(w.since).Seconds()+patience.Seconds())
	within("the median of the lease's margin", one(`histogram_quantile(0.5, rate(sallyport_vip_lease_margin_ratio_bucket{`+at+`}[10s])) > 0`), 0.01, 1)
	one(`count(sallyport_replication_in_step{` + at + `} == 1) == 2`)
	for _, lag := range w.until(`sallyport_replication_lag_seconds{` + at + `}`) {
		within("the lag of "+lag.Labels["standby"], lag.Value.Value, 0, since)
	}
	one(`sum(increase(sallyport_replication_seconds_count[10m])) > 0`)
	towards := fmt.Sprintf(`destination="%s:%d/tcp",`, partner, lab.TCPPort)
	used := one(`sallyport_snat_ports_used{` + towards + at + `} > 0`)
	within("the ports in use", used, 1, one(`sallyport_snat_ports_usable{`+towards+at+`}`))
	within("the time until they run out", one(`sallyport_snat_ports_exhausted_in_seconds{`+towards+at+`} >= 0 or sallyport_snat_ports_exhausted_in_seconds{`+towards+at+`} == +Inf`), 0, math.Inf(1))
	within("the connections", one(`sallyport_connections{`+at+`} > 0`), used, 1e6)
	one(`sum(sallyport_exclusive_dropped_packets_total{namespace="default"}) > 0`)
	w.until(`sallyport_route_bytes_total{route="payments",` + at + `} > 0`)
	w.until(`sallyport_build_info{priority=~".+",` + at + `}`)
}

// elsewhere are metrics that this world gives no occasion to.
var elsewhere = map[string]string{
	"sallyport_problems": "a program without problems has none",
}

// family gives the name that the guide has.
func family(series string) string {
	for _, f := range []string{"_bucket", "_sum", "_count"} {
		if name, is := strings.CutSuffix(series, f); is {
			return name
		}
	}
	return series
}

// metricsAreThoseOfTheGuide asks each kind of program for its metrics, and promtool
// what it thinks of them.
func (w *watched) metricsAreThoseOfTheGuide(t *testing.T) {
	guide, err := os.ReadFile(operations)
	w.must(err)
	rows := regexp.MustCompile("(?m)^\\| `(sallyport_[a-z_]+)` \\| (gateway|agent|both) \\|").FindAllStringSubmatch(string(guide), -1)
	if len(rows) < 30 {
		t.Fatalf("%s has only %d metrics", operations, len(rows))
	}
	for role, instances := range map[lab.Role][]int{lab.Gateway: w.Options.GatewayNodes, lab.Agent: {1, 2, 3, 4}} {
		given := map[string]bool{}
		for _, j := range instances {
			code, body, err := w.Get(t.Context(), role, j, "/metrics")
			if err != nil || code != http.StatusOK {
				t.Fatalf("metrics of the %s on n%d: %d %v", role, j, code, err)
			}
			for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) `).FindAllStringSubmatch(string(body), -1) {
				given[m[1]] = true
			}
			promtoolChecks(t, string(body))
		}
		for _, r := range rows {
			here := r[2] == "both" || r[2] == string(role)
			switch name := r[1]; {
			case here && !given[name] && elsewhere[name] == "":
				t.Errorf("%s says that a %s has %s: no live one has", operations, role, name)
			case !here && given[name]:
				t.Errorf("a live %s has %s, %s says %s", role, name, operations, r[2])
			}
			delete(given, r[1])
		}
		for name := range given {
			t.Errorf("a live %s has %s, which is not in %s", role, name, operations)
		}
	}
}

// promtoolChecks lets Prometheus's own checker read what a program serves.
func promtoolChecks(t *testing.T, metrics string) {
	t.Helper()
	cmd := exec.Command(prometheus.Need(t, "promtool"), "check", "metrics")
	cmd.Stdin = strings.NewReader(metrics)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// quiet are panels that are right to be empty where all is well.
var quiet = map[string]string{
	"Ports run out in": "no destination's use grows",
}

func (w *watched) dashboard() dashboard.Dashboard {
	d, err := dashboard.Read(dashboardFile, map[string]string{"job": ".*", "__rate_interval": "5s"})
	w.must(err)
	return d
}

// everythingIsAnswered asks each expression of the dashboard and of the alerts.
func (w *watched) everythingIsAnswered(t *testing.T) {
	names, err := w.Metrics()
	w.must(err)
	ask := func(where, expr string) []prometheus.Series {
		for _, name := range regexp.MustCompile(`sallyport_[a-z_]+`).FindAllString(expr, -1) {
			if !slices.Contains(names, name) && elsewhere[family(name)] == "" {
				t.Errorf("%s asks for %s, which no program gives", where, name)
			}
		}
		found, err := w.Range(expr, w.since, time.Now().Add(scraped), scraped) // what was scraped last, too
		if err != nil {
			t.Errorf("%s: %v", where, err)
		}
		return found
	}
	asked := 0
	for _, p := range w.dashboard().Panels {
		for _, target := range p.Targets {
			asked++
			if len(ask("panel "+p.Title, target.Expr)) == 0 && quiet[p.Title] == "" {
				t.Errorf("panel %q is empty: %s", p.Title, target.Expr)
			}
		}
	}
	text, err := os.ReadFile(alertsFile)
	w.must(err)
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	w.must(yaml.Unmarshal(text, &file))
	judged := map[string]prometheus.Rule{}
	rules, err := w.Rules()
	w.must(err)
	for _, r := range rules {
		judged[r.Name] = r
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			asked++
			ask("alert "+r.Alert, r.Expr)
			if j := judged[r.Alert]; j.Health != "ok" || j.LastError != "" || j.LastEvaluation.Before(w.since) {
				t.Errorf("alert %s is judged as %+v", r.Alert, j)
			}
		}
	}
	if asked < 50 {
		t.Errorf("only %d expressions found", asked)
	}
}

// draw has the dashboard looked at in a browser.
func (w *watched) draw(t *testing.T) {
	until := time.Now().Add(scraped).Truncate(scraped) // what was scraped last, too
	seen, err := dashboard.Look(chromium.Test(t, exec.Command), t.TempDir(), w.dashboard(), w.Server,
		dashboard.Span{From: w.since.Truncate(scraped), To: until, Step: scraped})
	w.must(err)
	for _, title := range seen.Empty {
		if quiet[title] == "" {
			t.Errorf("panel %q is drawn empty", title)
		}
	}
	if seen.Lines < 25 {
		t.Errorf("only %d lines are drawn", seen.Lines)
	}
	keep(t, seen.Picture, "dashboard.png")
}

// A gateway that does not get before others on the CPU says so aloud.
func TestAPriorityThatWasNotRaisedIsWarnedOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 1})
	_, err := w.StartWithout("sys_nice", lab.Gateway, 1)
	w.must(err)
	w.await(w.ready(lab.Gateway, 1))
	_, body, err := w.Get(t.Context(), lab.Gateway, 1, "/metrics")
	w.must(err)
	if !regexp.MustCompile(`(?m)^sallyport_build_info\{.*priority="(normal|nice [1-9]\d*): CAP_SYS_NICE missing"`).Match(body) {
		t.Error("sallyport_build_info does not say that the priority is normal")
	}
	if !regexp.MustCompile(`(?m)^sallyport_priority_raised 0$`).Match(body) {
		t.Error("sallyport_priority_raised does not say that it was refused")
	}
	ns, err := w.Namespace("n1")
	w.must(err)
	said, err := ns.Command(binary, "doctor", "--http", lab.GatewayHTTP).CombinedOutput()
	if !regexp.MustCompile(`(?m)^WARNING +priority +n1 +scheduling: the election runs at (normal|nice [1-9]\d*): CAP_SYS_NICE missing$`).Match(said) {
		t.Errorf("doctor does not say so: %v\n%s", err, said)
	}
	log, err := os.ReadFile(w.gateway(1).Log)
	w.must(err)
	if !regexp.MustCompile(`(?m)"level":"WARN".*"in_force":"(normal|nice [1-9]\d*): CAP_SYS_NICE missing"`).Match(log) {
		t.Errorf("the log has no warning:\n%s", log)
	}
}
