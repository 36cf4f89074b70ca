package dashboard

import (
	"cmp"
	_ "embed" // the page
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/prometheus"
)

// Of the picture, in pixels.
const (
	Width  = 1440
	column = Width / 24
	row    = 34
	gap    = 8
	head   = 48
)

var colors = map[string]string{"green": "#37872d", "red": "#c4162a", "orange": "#e0752d", "blue": "#1f60c4"}

// Asked is a Prometheus.
type Asked interface {
	Query(expr string) ([]prometheus.Series, error)
	Range(expr string, from, to time.Time, step time.Duration) ([]prometheus.Series, error)
}

// Span of time that is drawn.
type Span struct {
	From, To time.Time
	Step     time.Duration
}

// box is a panel in the picture.
type box struct {
	Title, Type           string
	Left, Top, Wide, High int
	Empty                 bool
	Stats                 []stat
	Heads                 []string
	Rows                  [][]string
	Plot                  *plot
}

type stat struct{ Name, Text, Color string }

// named is a series with what the panel calls it.
type named struct {
	prometheus.Series
	name string
}

//go:embed page.html
var page string

var document = template.Must(template.New("page").Parse(page))

// Draw gives a page that needs nothing else, and its height.
func Draw(d Dashboard, p Asked, span Span) (html string, height int, err error) {
	var boxes []box
	for _, panel := range d.Panels {
		b := box{
			Title: panel.Title, Type: panel.Type,
			Left: panel.Place.X*column + gap/2, Top: head + panel.Place.Y*row + gap/2,
			Wide: panel.Place.W*column - gap, High: panel.Place.H*row - gap,
		}
		if err := b.fill(panel, p, span); err != nil {
			return "", 0, fmt.Errorf("panel %q: %w", panel.Title, err)
		}
		height = max(height, b.Top+b.High+gap)
		boxes = append(boxes, b)
	}
	var out strings.Builder
	err = document.Execute(&out, map[string]any{
		"Title": d.Title, "Span": span.From.UTC().Format("2006-01-02 15:04:05") + " to " + span.To.UTC().Format("15:04:05 UTC"),
		"Width": Width, "Height": height, "Boxes": boxes,
	})
	return out.String(), height, err
}

func (b *box) fill(panel Panel, p Asked, span Span) error {
	all, err := answers(panel, p, span)
	if err != nil {
		return err
	}
	b.Empty = len(all) == 0 && panel.Type != "row"
	switch panel.Type {
	case "row":
	case "stat":
		b.stats(panel, all)
	case "table":
		b.table(panel, all)
	case "timeseries":
		b.Plot = newPlot(b.Wide, b.High, all, panel.Fields.Defaults.Unit, span)
	default:
		return fmt.Errorf("type %q cannot be drawn: teach it to this package", panel.Type)
	}
	return nil
}

// answers to what a panel asks for, in order of their names.
func answers(panel Panel, p Asked, span Span) (all []named, err error) {
	for _, t := range panel.Targets {
		var found []prometheus.Series
		if t.Instant {
			found, err = p.Query(t.Expr)
		} else {
			found, err = p.Range(t.Expr, span.From, span.To, span.Step)
		}
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			all = append(all, named{s, t.name(s.Labels)})
		}
	}
	slices.SortStableFunc(all, func(a, b named) int { return cmp.Compare(a.name, b.name) })
	return all, nil
}

func (b *box) stats(panel Panel, all []named) {
	d := panel.Fields.Defaults
	for _, s := range all {
		shown := stat{Name: s.name, Text: text(s.Value.Value, d.Unit), Color: colors[d.color(s.Value.Value)]}
		if panel.Options.TextMode == "name" {
			shown.Name, shown.Text = "", s.name
		}
		b.Stats = append(b.Stats, shown)
	}
}

// table has a column for each label that the panel does not leave out.
func (b *box) table(panel Panel, all []named) {
	without := map[string]bool{}
	for _, c := range panel.Changes {
		for name, out := range c.Options.Without {
			without[name] = out
		}
	}
	for _, s := range all {
		for name := range s.Labels {
			if !without[name] && !slices.Contains(b.Heads, name) {
				b.Heads = append(b.Heads, name)
			}
		}
	}
	slices.Sort(b.Heads)
	for _, s := range all {
		var cells []string
		for _, h := range b.Heads {
			cells = append(cells, s.Labels[h])
		}
		b.Rows = append(b.Rows, cells)
	}
	slices.SortFunc(b.Rows, slices.Compare)
}
