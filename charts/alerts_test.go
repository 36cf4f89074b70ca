package charts_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	alertsFile    = chart + "/files/alerts.yaml"
	dashboardFile = chart + "/files/dashboard.json"
	operations    = "../docs/operations.md"
)

type alerting struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func alerts(t *testing.T, text string) (rules alerting) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &rules); err != nil {
		t.Fatal(err)
	}
	if len(rules.Groups) == 0 || len(rules.Groups[0].Rules) < 10 {
		t.Fatalf("only %+v found", rules)
	}
	return rules
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Fatal("needs promtool: install Debian's package prometheus, without its recommendations")
	}
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// The threshold, window and aggregation of each rule have a case on either side, and each ends
// with its cause.
func TestAlertsFireOnWhatTheyAreFor(t *testing.T) {
	promtool(t, "check", "rules", alertsFile)
	promtool(t, "test", "rules", "testdata/alerts_test.yaml", "testdata/alerts_seconds_test.yaml")
	tried := page(t, "testdata/alerts_test.yaml")
	for _, r := range alerts(t, page(t, alertsFile)).Groups[0].Rules {
		if !strings.Contains(tried, `alertname="`+r.Alert+`"`) {
			t.Errorf("testdata/alerts_test.yaml never sees %s fire", r.Alert)
		}
		if !strings.Contains(tried, `{alertname="`+r.Alert+`"}`) {
			t.Errorf("testdata/alerts_test.yaml never sees %s end", r.Alert)
		}
	}
}

func TestEveryAlertHasItsEntry(t *testing.T) {
	guide := page(t, operations)
	_, section, _ := strings.Cut(guide, "\n## Alerts\n")
	section, _, _ = strings.Cut(section, "\n## ")
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(section, -1) {
		headings[m[1]] = true
	}
	for _, r := range alerts(t, page(t, alertsFile)).Groups[0].Rules {
		if !headings[r.Alert] {
			t.Errorf("%s has no entry for %s", operations, r.Alert)
		}
		delete(headings, r.Alert)
		if link := r.Annotations["runbook_url"]; !strings.HasSuffix(link, "/docs/operations.md#"+strings.ToLower(r.Alert)) {
			t.Errorf("%s links to %q", r.Alert, link)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s is of severity %q", r.Alert, r.Labels["severity"])
		}
	}
	for name := range headings {
		t.Errorf("%s has an entry for %s, which is no alert", operations, name)
	}
}

// queries of the dashboard, by the panel's title, with Grafana's variables filled in.
func queries(t *testing.T) map[string][]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(page(t, dashboardFile)), &dashboard); err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			found[p.Title] = append(found[p.Title], strings.NewReplacer("$job", ".*", "$__rate_interval", "1m").Replace(target.Expr))
		}
	}
	if len(found) < 20 {
		t.Fatalf("only %d panels have queries", len(found))
	}
	return found
}

// The operations guide has every metric that there is; a test of gateway/host sees to that.
func TestDashboardAndAlertsNameOnlyMetricsThatExist(t *testing.T) {
	exist := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(sallyport_[a-z_]+)` \\|").FindAllStringSubmatch(page(t, operations), -1) {
		exist[m[1]] = true
	}
	named := regexp.MustCompile(`sallyport_[a-z_]+`)
	look := func(where, expr string) {
		for _, metric := range named.FindAllString(expr, -1) {
			if !exist[metric] && !exist[strings.TrimSuffix(metric, "_bucket")] {
				t.Errorf("%s asks for %s, which does not exist", where, metric)
			}
		}
	}
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var asked []rule
	for title, list := range queries(t) {
		for _, expr := range list {
			look("panel "+title, expr)
			asked = append(asked, rule{"panel:" + regexp.MustCompile(`\W`).ReplaceAllString(title, "_"), expr})
		}
	}
	for _, r := range alerts(t, page(t, alertsFile)).Groups[0].Rules {
		look("alert "+r.Alert, r.Expr)
	}
	// As rules, so that promtool parses them.
	file := filepath.Join(t.TempDir(), "panels.yaml")
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": asked}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

func TestTheChartsAlertsAreThoseOfTheFile(t *testing.T) {
	rule := find(t, render(t, "--set", "alerts.enabled=true,http.expose=true,alerts.labels.team=net"), "PrometheusRule", "egress-sallyport")
	if rule.GetLabels()["team"] != "net" {
		t.Errorf("labels %v", rule.GetLabels())
	}
	spec, err := yaml.Marshal(rule.Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	got, want := alerts(t, string(spec)).Groups[0].Rules, alerts(t, page(t, alertsFile)).Groups[0].Rules
	if len(got) != len(want) {
		t.Fatalf("rendered %d rules, want %d", len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("rendered %+v, want %+v", got[i], want[i])
		}
	}
	for _, u := range render(t) {
		if u.GetKind() == "PrometheusRule" {
			t.Error("there is a PrometheusRule though alerts are off")
		}
	}
}
