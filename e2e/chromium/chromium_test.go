package chromium

import (
	"bytes"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestAPageIsReadResizedAndDrawn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:")
		_, _ = w.Write([]byte(`<!doctype html><meta name=viewport content="width=device-width">
<style>@media (prefers-color-scheme: dark) { body { color: rgb(1, 2, 3) } }</style><link rel=icon href="data:,"><p>hello</p><img src="picture"><script>document.title = "forbidden"</script>`))
	}))
	defer server.Close()
	b := Test(t, exec.Command)
	p, err := b.Open(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(p.Resize(390, 844, true))
	must(p.Dark(true))
	var seen struct {
		Text, Color, Title string
		Width              int
	}
	must(p.Eval(`({Text: document.querySelector("p").textContent, Color: getComputedStyle(document.body).color, Title: document.title, Width: innerWidth})`, &seen))
	if seen.Text != "hello" || seen.Color != "rgb(1, 2, 3)" || seen.Title != "" || seen.Width != 390 {
		t.Errorf("seen %+v", seen)
	}
	shot, err := p.Screenshot()
	must(err)
	if picture, err := png.DecodeConfig(bytes.NewReader(shot)); err != nil || picture.Width != 390 {
		t.Errorf("picture %+v: %v", picture, err)
	}
	if said := strings.Join(p.Complaints(), " "); !strings.Contains(said, "Content Security Policy") {
		t.Errorf("complaints %q do not name the script that was refused", said)
	}
	if asked, want := p.Requests(), []string{server.URL + "/", server.URL + "/picture"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	if err := p.Eval("nothing.there", nil); err == nil || !strings.Contains(err.Error(), "ReferenceError") {
		t.Errorf("error %v", err)
	}
	must(p.Close())
	if err := p.Eval("1", nil); err == nil {
		t.Error("a page that is closed goes on")
	}
}
