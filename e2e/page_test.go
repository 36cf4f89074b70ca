package e2e

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/e2e/chromium"
	"github.com/sallyport/sallyport/e2e/lab"
)

var update = flag.Bool("update", false, "draw the pictures in docs/ anew")

// hostile is markup in a message that the page shows: the field of a route that is none.
const hostile = `<img src=x onerror=document.title=1>`

// A person who has the page open sees a failover happen, without loading it again, and
// afterwards how long nobody held the VIP.
func TestThePageShowsAFailoverLive(t *testing.T) {
	t.Parallel()
	// One failover happens, whatever else the machine does.
	w := newWorld(t, lab.Options{GatewayArgs: []string{"--timing", "wan"}})
	browser := chromium.Test(t, func(name string, args ...string) *exec.Cmd {
		ns, err := w.Namespace("n1") // where the page is, on loopback
		w.must(err)
		return ns.Command(name, args...)
	})
	w.must(w.Manifests.WriteRoute("kyc", "vip: 192.0.2.99\nnamespaceSelector: {}\ndestinations:\n- cidr: 203.0.113.7/32\n"))
	w.must(w.Manifests.WriteRoute("strange", "vip: \""+hostile+"\"\nnamespaceSelector: {}\ndestinations:\n- cidr: 203.0.113.8/32\n"))
	w.must(w.StartAll())
	w.awaitReady()
	if w.holder() == 1 { // its gateway shows the page and lives on
		w.must(w.gateway(1).Stop())
		w.awaitHolder(2, 3)
		w.restartGateway(1)
	}
	holder := w.holder()
	traffic := w.startTraffic(1)
	p, err := browser.Open("http://" + lab.GatewayHTTP + "/")
	w.must(err)
	w.must(p.Resize(1100, 900, false))
	w.must(p.Dark(false))
	name := lab.NodeName(holder)
	w.must(p.Await(fmt.Sprintf(`document.querySelector("[data-vip='192.0.2.10'] .holder").textContent === "held by %s"`, name)))
	w.must(p.Await(`[...document.querySelectorAll(".problem")].some(p => p.textContent.includes("192.0.2.99"))`))
	w.must(p.Await(`[...document.querySelectorAll(".problem")].some(p => p.textContent.includes("<img src=x"))`))
	w.must(p.Await(`[...document.querySelectorAll("#routes tbody tr")].some(r => /^payments.*[1-9][0-9,]* of [0-9,]+ source ports to 203[.]0[.]113[.]5:/.test(r.textContent))`))
	w.must(p.Await(`(r => r && r.querySelector("[data-name=Pods]").textContent === "3" && /^[1-9]/.test(r.querySelector("[data-name=Connections]").textContent))(
		[...document.querySelectorAll("#routes tbody tr")].find(r => r.textContent.startsWith("payments")))`))
	w.must(p.Await(fmt.Sprintf(`[...document.querySelectorAll("#nodes .chips span")].map(s => s.textContent).sort().join() === "%s"`, "n1 (this gateway): 1 pod,n2: 1 pod,n3: 1 pod")))
	w.must(p.Eval(`window.loaded = "once"`, nil))
	// By default it is for its own host.
	if code, _, err := w.Fetch(t.Context(), "n2", fmt.Sprintf("http://%s:9871/", w.NodeIP(1))); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("from n2: %d %v, want a connection refused", code, err)
	}

	w.must(w.gateway(holder).Kill())
	heir := w.awaitHolder(others([]int{1, 2, 3}, holder)...)
	w.must(p.Await(fmt.Sprintf(`document.querySelector("[data-vip='192.0.2.10'] .holder").textContent.startsWith("held by %s")`, lab.NodeName(heir))))
	w.must(p.Await(`document.querySelector("[data-vip='192.0.2.10'] ol").textContent.includes("no heartbeat for a lease")`))
	var seen struct {
		Loaded, Title string
		Gaps, Images  int
		GapWidth      float64
		Order         []string
	}
	w.must(p.Eval(`({Loaded: window.loaded, Title: document.title, Images: document.images.length,
		Gaps: document.querySelectorAll(".bar .gap").length,
		GapWidth: [...document.querySelectorAll(".bar .gap")].pop().getBoundingClientRect().width,
		Order: [...document.querySelectorAll("[data-vip='192.0.2.10'] ol li")].slice(0, 3).map(l => l.className.includes("gap") ? "gap" : l.children[1].textContent)})`, &seen))
	if seen.Loaded != "once" || seen.Images != 0 || !strings.Contains(seen.Title, "Sallyport, n1") {
		t.Errorf("seen %+v: the page was loaded anew, or took a message for markup", seen)
	}
	if want := fmt.Sprint([]string{lab.NodeName(heir), "gap", name}); seen.Gaps == 0 || seen.GapWidth < 3 || fmt.Sprint(seen.Order) != want {
		t.Errorf("%d gaps, the last %v pixels wide, and %v, want %s", seen.Gaps, seen.GapWidth, seen.Order, want)
	}

	w.must(w.Manifests.Remove("EgressRoute", "", "strange"))
	w.must(p.Await(`document.querySelectorAll(".problem").length === 1`))
	w.restartGateway(holder)
	w.must(p.Await(`document.querySelector("[data-vip='192.0.2.10']").textContent.includes("3 of 3 gateways hear each other")`))
	if heir == 1 {
		w.must(p.Await(`[...document.querySelectorAll(".standby.good")].filter(s => / in step, lag [0-9]+ ms$/.test(s.textContent)).length === 2`))
		w.must(p.Await(`/^[1-9].* [kM]?B$/.test([...document.querySelectorAll("#routes tbody tr")].find(r => r.textContent.startsWith("payments")).querySelector("[data-name=Bytes]").textContent)`))
	} else {
		w.must(p.Await(`document.querySelector("[data-vip='192.0.2.10']").textContent.includes("this gateway is in step")`))
	}
	w.must(p.Eval(`(() => { const s = document.getElementById("span"); s.value = "300"; s.dispatchEvent(new Event("change")) })()`, nil))
	picture(t, p, "page-light.png")
	w.must(p.Dark(true))
	picture(t, p, "page-dark.png")
	if err := p.Legible(); err != nil {
		t.Error(err)
	}
	picture(t, p, "page-phone.png")
	if said := p.Complaints(); len(said) > 0 {
		t.Errorf("the browser complains: %s", said)
	}

	w.must(w.gateway(1).Kill()) // the page's own
	w.must(p.Await(`document.getElementById("link").textContent.startsWith("not connected since")`))
	w.restartGateway(1)
	w.must(p.Await(`document.getElementById("link").textContent === "live"`))
	for _, e := range traffic.echo {
		e.Stop()
	}
}

// picture keeps what the page looks like.
func picture(t *testing.T, p *chromium.Page, name string) {
	t.Helper()
	shot, err := p.Screenshot()
	if err != nil {
		t.Fatal(err)
	}
	keep(t, shot, name)
}

// keep writes a picture into docs/, where that is wanted.
func keep(t *testing.T, shot []byte, name string) {
	t.Helper()
	if len(shot) < 10_000 {
		t.Errorf("%s has %d bytes: it is empty", name, len(shot))
	}
	if !*update {
		return
	}
	dir := filepath.Join("..", "docs", "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), shot, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Whoever is not on the gateway's host gets the page with the token only, and types it in.
func TestThePageTakesATokenFromElsewhere(t *testing.T) {
	t.Parallel()
	const token = "correct-horse-battery-staple"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, lab.Options{Nodes: 2, GatewayNodes: []int{1}, GatewayArgs: []string{"--http", "0.0.0.0:9871", "--http-token-file", file}})
	_, err := w.StartGateway(1)
	w.must(err)
	w.await(w.ready(lab.Gateway, 1))
	url := "http://" + netip.AddrPortFrom(w.NodeIP(1), 9871).String()
	for path, want := range map[string]int{"/": 200, "/events": 401, "/status": 401, "/doctor": 401, "/trace": 401, "/metrics": 200, "/readyz": 200, "/allowlist": 200} {
		if code, body, err := w.Fetch(t.Context(), "n2", url+path); err != nil || code != want {
			t.Errorf("%s from n2: %d %.80s, want %d: %v", path, code, body, want, err)
		}
	}
	if code, _, err := w.Get(t.Context(), lab.Gateway, 1, "/status"); err != nil || code != http.StatusOK {
		t.Errorf("on its own host: %d %v", code, err)
	}
	browser := chromium.Test(t, func(name string, args ...string) *exec.Cmd {
		ns, err := w.Namespace("n2")
		w.must(err)
		return ns.Command(name, args...)
	})
	p, err := browser.Open(url + "/")
	w.must(err)
	enter := func(text string) {
		w.must(p.Await(`!document.getElementById("door").hidden`))
		w.must(p.Eval(fmt.Sprintf(`(() => { document.getElementById("token").value = %q; document.querySelector("#door button").click() })()`, text), nil))
	}
	enter("wrong-horse-battery-staple")
	w.must(p.Await(`document.getElementById("refused").textContent !== ""`))
	enter(token)
	w.must(p.Await(`document.getElementById("link").textContent === "live" && document.querySelectorAll("[data-vip]").length === 1`))

	// The file goes while the gateway runs: nobody has a token then.
	stranger := func(want int) {
		w.t.Helper()
		if code, body, err := w.Fetch(t.Context(), "n2", url+"/status"); err != nil || code != want {
			t.Errorf("from n2: %d %.80s, want %d: %v", code, body, want, err)
		}
	}
	w.must(os.Rename(file, file+"-away"))
	stranger(403)
	w.says(lab.Gateway, 1, "HTTP endpoint", "--http-token-file", file, "put it back")
	w.must(os.Rename(file+"-away", file))
	stranger(401)
	w.content(lab.Gateway, 1)
}
