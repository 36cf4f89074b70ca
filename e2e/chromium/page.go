package chromium

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Page is one tab.
type Page struct {
	browser *Browser
	target  string
	session string
	closed  atomic.Bool
}

// Open loads a URL in a new tab. It returns when the document is there; what scripts
// do afterwards is awaited by Await.
func (b *Browser) Open(url string) (*Page, error) {
	var target struct{ TargetID string }
	if err := b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return nil, err
	}
	var attached struct{ SessionID string }
	if err := b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached); err != nil {
		return nil, err
	}
	p := &Page{browser: b, target: target.TargetID, session: attached.SessionID}
	for _, domain := range []string{"Runtime.enable", "Log.enable", "Page.enable", "Network.enable"} {
		if err := p.call(domain, map[string]any{}, nil); err != nil {
			return nil, err
		}
	}
	return p, p.Go(url)
}

// Close closes the tab. Of a session that is about to end Chromium may answer nothing at all.
func (p *Page) Close() error {
	p.closed.Store(true)
	return p.browser.call("", "Target.closeTarget", map[string]any{"targetId": p.target}, nil)
}

// Go loads a URL.
func (p *Page) Go(url string) error {
	var loaded struct{ ErrorText string }
	if err := p.call("Page.navigate", map[string]any{"url": url}, &loaded); err != nil {
		return err
	}
	if loaded.ErrorText != "" {
		return fmt.Errorf("load %s: %s", url, loaded.ErrorText)
	}
	return p.Await(`document.readyState === "complete"`)
}

// Eval gives what a JavaScript expression is.
func (p *Page) Eval(expression string, value any) error {
	var done struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	params := map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}
	if err := p.call("Runtime.evaluate", params, &done); err != nil {
		return err
	}
	if e := done.ExceptionDetails; e != nil {
		return fmt.Errorf("%s: %s %s", expression, e.Text, e.Exception.Description)
	}
	if value == nil || done.Result.Value == nil {
		return nil
	}
	return json.Unmarshal(done.Result.Value, value)
}

// Await returns when a JavaScript expression is true.
func (p *Page) Await(expression string) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var is bool
		err := p.Eval("!!("+expression+")", &is)
		if err == nil && is {
			return nil
		}
		if time.Now().After(deadline) {
			var text string
			_ = p.Eval("document.body ? document.body.innerText : ''", &text)
			return fmt.Errorf("never true: %s (%v); the page says: %s", expression, err, text)
		}
		<-tick.C
	}
}

// Resize gives the page's view a size in pixels of CSS; of a phone, as phones do.
func (p *Page) Resize(width, height int, phone bool) error {
	return p.call("Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone,
	}, nil)
}

// Dark says whether the reader likes dark pages.
func (p *Page) Dark(dark bool) error {
	scheme := map[bool]string{false: "light", true: "dark"}[dark]
	return p.call("Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}},
	}, nil)
}

// Legible says what is wrong with the page for who likes it light, or dark, or has a phone. It is
// left dark, and as wide as on a phone.
func (p *Page) Legible() error {
	const phone = 390 // pixels of CSS
	light, err := p.ground(false)
	if err != nil {
		return err
	}
	dark, err := p.ground(true)
	if err != nil {
		return err
	}
	if light < 180 || dark > 80 {
		return fmt.Errorf("the ground is %d bright where it is to be light, and %d where dark, of 255", light, dark)
	}
	if err := p.Resize(phone, 844, true); err != nil {
		return err
	}
	var width int
	if err := p.Eval(`document.documentElement.scrollWidth`, &width); err != nil {
		return err
	}
	if width > phone {
		return fmt.Errorf("the page is %d pixels wide on a phone of %d", width, phone)
	}
	return nil
}

// ground is how bright what is behind the text is, of 255.
func (p *Page) ground(dark bool) (bright int, err error) {
	if err := p.Dark(dark); err != nil {
		return 0, err
	}
	err = p.Eval(`Math.max(...getComputedStyle(document.body).backgroundColor.match(/\d+/g).slice(0, 3).map(Number))`, &bright)
	return bright, err
}

// Screenshot of the whole page, as PNG.
func (p *Page) Screenshot() ([]byte, error) {
	var shot struct{ Data []byte }
	err := p.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	return shot.Data, err
}

// Complaints are the errors of scripts, refusals by the page's policy and requests that
// failed, so far.
func (p *Page) Complaints() []string {
	p.browser.mu.Lock()
	defer p.browser.mu.Unlock()
	return slices.Clone(p.browser.said[p.session])
}

// Requests are the URLs that the page asked for so far, its own first. Those of data are
// none.
func (p *Page) Requests() []string {
	p.browser.mu.Lock()
	defer p.browser.mu.Unlock()
	return slices.Clone(p.browser.asked[p.session])
}

func (p *Page) call(method string, params, result any) error {
	if p.closed.Load() {
		return fmt.Errorf("%s: the page is closed", method)
	}
	return p.browser.call(p.session, method, params, result)
}

// note keeps what the browser asks for and complains of. The caller has the lock.
func (b *Browser) note(a answer) {
	switch a.Method {
	case "Network.requestWillBeSent":
		var sent struct{ Request struct{ URL string } }
		if err := json.Unmarshal(a.Params, &sent); err != nil || !strings.HasPrefix(sent.Request.URL, "data:") {
			b.asked[a.SessionID] = append(b.asked[a.SessionID], sent.Request.URL)
		}
	case "Runtime.exceptionThrown", "Log.entryAdded":
		var log struct{ Entry struct{ Level string } }
		if json.Unmarshal(a.Params, &log) == nil && log.Entry.Level != "" && log.Entry.Level != "error" {
			return
		}
		b.said[a.SessionID] = append(b.said[a.SessionID], string(a.Params))
	}
}
