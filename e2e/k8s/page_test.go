package k8s

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sallyport/sallyport/e2e/chromium"
	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

// viewer is a person with the status page open, on the machine of an administrator.
type viewer struct {
	w       *world
	browser *chromium.Browser
	page    *chromium.Page
	url     string
	end     func() error
}

// viewed opens the page of a node's gateway, by `kubectl sallyport dashboard`, and demands that
// it shows what kubectl does.
func (w *world) viewed(l *load, j int) *viewer {
	w.t.Helper()
	w.plugin()
	ns, err := w.Lab.Namespace(cluster.ControlPlane)
	w.must(err)
	d := w.dashboard(lab.NodeName(j))
	v := &viewer{w: w, url: d.url, end: d.end, browser: chromium.Test(w.t, func(name string, args ...string) *exec.Cmd { return ns.Command(name, args...) })}
	v.page, err = v.browser.Open(v.url)
	w.must(err)
	w.must(v.page.Resize(1100, 900, false))
	v.holder()
	v.shows(`document.querySelectorAll("[data-vip]").length === 1 && document.querySelectorAll(".problem").length === 0`)
	v.shows(fmt.Sprintf(`[...document.querySelectorAll("#routes tbody tr")].some(r => /^payments/.test(r.textContent) &&
		r.querySelector("[data-name=VIP]").textContent === %q && r.querySelector("[data-name=Pods]").textContent === "%d")`, theVIP, len(w.pods(l.app))))
	var nodes []string
	for _, i := range w.everyNode() {
		name := lab.NodeName(i)
		if i == j {
			name += " (this gateway)"
		}
		nodes = append(nodes, name+": 1 pod")
	}
	v.shows(fmt.Sprintf(`[...document.querySelectorAll("#nodes .chips span")].map(s => s.textContent).sort().join() === %q`, strings.Join(nodes, ",")))
	w.must(v.page.Eval(`window.loaded = "once"`, nil))
	return v
}

func (v *viewer) shows(condition string) {
	v.w.t.Helper()
	v.w.must(v.page.Await(condition))
}

// holder awaits that the page names the gateway on the node that holds, by the route's status.
func (v *viewer) holder() {
	v.w.t.Helper()
	node := v.w.kubectl("get", "egressroute", "payments", "-o", "jsonpath={.status.holder}")
	gateway := v.w.kubectl("get", "pods", "-n", namespace, "-l", "app.kubernetes.io/component=gateway", "--field-selector", "spec.nodeName="+node, "-o", "jsonpath={.items[0].metadata.name}")
	v.shows(fmt.Sprintf(`document.querySelector("[data-vip='%s'] .holder").textContent.replace(" (this gateway)", "") === "held by %s"`, theVIP, gateway))
}

// mended awaits that the page shows all gateways again, and demands that it is still the one
// that was loaded, content, and that it asked nobody but its gateway.
func (v *viewer) mended() {
	v.w.t.Helper()
	n := len(v.w.everyNode())
	v.shows(fmt.Sprintf(`document.querySelector("[data-vip]").textContent.includes("%d of %d gateways hear each other")`, n, n))
	v.shows(`document.querySelector("[data-vip] ol").textContent.includes("no heartbeat for a lease")`)
	v.shows(`document.querySelector("[data-vip]").textContent.includes("this gateway is in step") ||
		[...document.querySelectorAll(".standby.good")].some(s => / in step, lag [0-9]+ ms$/.test(s.textContent))`)
	v.shows(fmt.Sprintf(`[...document.querySelectorAll("#routes tbody tr")].some(r => /^payments/.test(r.textContent) &&
		/^[1-9]/.test(r.querySelector("[data-name=Connections]").textContent) && / [kM]?B$/.test(r.querySelector("[data-name=Bytes]").textContent) &&
		/[1-9][0-9,]* of [0-9,]+ source ports to /.test(r.textContent) && r.textContent.includes(" source ports to %s:"))`, partner))
	if err := v.page.Legible(); err != nil {
		v.w.t.Error(err)
	}
	v.w.must(v.page.Resize(1100, 900, false))
	var loaded string
	v.w.must(v.page.Eval(`window.loaded`, &loaded))
	if loaded != "once" {
		v.w.t.Error("the page was loaded anew")
	}
	if said := v.page.Complaints(); len(said) > 0 {
		v.w.t.Errorf("the browser complains: %s", said)
	}
	asked := v.page.Requests()
	for _, url := range asked {
		if !strings.HasPrefix(url, v.url) {
			v.w.t.Errorf("the page of %s asks %s", v.url, url)
		}
	}
	if len(asked) < 2 {
		v.w.t.Errorf("the page asked for %q only", asked)
	}
	shot, err := v.page.Screenshot()
	v.w.must(err)
	v.w.must(os.WriteFile(filepath.Join(v.w.t.ArtifactDir(), "page.png"), shot, 0o600))
	v.w.must(v.end())
}

// admitted opens the page at the node's address, where the token is asked for.
func (v *viewer) admitted(j int) {
	v.w.t.Helper()
	p, err := v.browser.Open(fmt.Sprintf("http://%s:9871/", lab.OutsideAddr(j)))
	v.w.must(err)
	for _, t := range []struct{ token, then string }{
		{"wrong-" + token, `document.getElementById("refused").textContent !== "" && document.querySelectorAll("[data-vip]").length === 0`},
		{token, `document.getElementById("link").textContent === "live" && document.querySelectorAll("[data-vip]").length === 1`},
	} {
		v.w.must(p.Await(`!document.getElementById("door").hidden`))
		v.w.must(p.Eval(fmt.Sprintf(`(() => { document.getElementById("token").value = %q; document.querySelector("#door button").click() })()`, t.token), nil))
		v.w.must(p.Await(t.then))
	}
	v.w.must(p.Close())
}
