package dashboard

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/e2e/chromium"
)

// Seen is a dashboard as a browser shows it.
type Seen struct {
	Panels, Lines int
	Wide, High    int
	Empty         []string // titles of panels without anything
	Picture       []byte   `json:"-"` // PNG
}

// Look has a browser show what Draw drew, by a file in the folder.
func Look(b *chromium.Browser, folder string, d Dashboard, p Asked, span Span) (seen Seen, err error) {
	html, height, err := Draw(d, p, span)
	if err != nil {
		return seen, err
	}
	file := filepath.Join(folder, "dashboard.html")
	if err := os.WriteFile(file, []byte(html), 0o600); err != nil {
		return seen, err
	}
	page, err := b.Open("file://" + file)
	if err != nil {
		return seen, err
	}
	if err := page.Resize(Width, height, false); err != nil {
		return seen, err
	}
	err = page.Eval(`({Panels: document.querySelectorAll("section").length, Lines: document.querySelectorAll("li").length,
		Wide: document.documentElement.scrollWidth, High: document.documentElement.scrollHeight,
		Empty: [...document.querySelectorAll("[data-empty]")].map(s => s.dataset.empty)})`, &seen)
	if err != nil {
		return seen, err
	}
	if seen.Panels != len(d.Panels) || seen.Wide != Width || seen.High != height {
		return seen, fmt.Errorf("drawn %d panels on %d by %d pixels, want %d on %d by %d", seen.Panels, seen.Wide, seen.High, len(d.Panels), Width, height)
	}
	if said := page.Complaints(); len(said) > 0 {
		return seen, fmt.Errorf("the browser complains: %s", said)
	}
	seen.Picture, err = page.Screenshot()
	return seen, err
}
