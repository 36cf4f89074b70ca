// Package dashboard draws a Grafana dashboard from a Prometheus, without Grafana: the
// kinds of panel that ours has, near enough to see what an operator sees.
package dashboard

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Dashboard as Grafana's JSON has it.
type Dashboard struct {
	Title  string
	Panels []Panel
}

// Panel of a dashboard.
type Panel struct {
	Title, Type string
	Place       Place `json:"gridPos"`
	Targets     []Target
	Fields      struct{ Defaults Defaults } `json:"fieldConfig"`
	Options     struct{ TextMode string }
	Changes     []Change `json:"transformations"`
}

// Place on a grid that is 24 wide.
type Place struct{ X, Y, W, H int }

// Target is what a panel asks for.
type Target struct {
	Expr    string
	Legend  string `json:"legendFormat"`
	Instant bool
}

// Defaults of a panel's values.
type Defaults struct {
	Unit       string
	Thresholds struct{ Steps []Step }
}

// Step is the colour of values from here on; without a value, of all below.
type Step struct {
	Color string
	Value *float64
}

// Change to a table.
type Change struct {
	Options struct {
		Without map[string]bool `json:"excludeByName"`
	}
}

// Read gives a dashboard with the variables in its expressions filled in.
func Read(file string, variables map[string]string) (d Dashboard, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, fmt.Errorf("%s: %w", file, err)
	}
	for _, p := range d.Panels {
		for i := range p.Targets {
			t := &p.Targets[i]
			for name, value := range variables {
				t.Expr = strings.ReplaceAll(t.Expr, "$"+name, value)
			}
			if strings.Contains(t.Expr, "$") {
				return d, fmt.Errorf("%s: panel %q has a variable without a value: %s", file, p.Title, t.Expr)
			}
		}
	}
	return d, nil
}

// Empty are the expressions, by their panel's title, that nothing answers in the span.
func (d Dashboard) Empty(p Asked, span Span) (map[string][]string, error) {
	empty := map[string][]string{}
	for _, panel := range d.Panels {
		for _, t := range panel.Targets {
			found, err := p.Range(t.Expr, span.From, span.To, span.Step)
			if err != nil {
				return nil, fmt.Errorf("panel %q: %w", panel.Title, err)
			}
			if len(found) == 0 {
				empty[panel.Title] = append(empty[panel.Title], t.Expr)
			}
		}
	}
	return empty, nil
}

var placeholder = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// name of a series, by the target's pattern.
func (t Target) name(labels map[string]string) string {
	return placeholder.ReplaceAllStringFunc(t.Legend, func(m string) string { return labels[placeholder.FindStringSubmatch(m)[1]] })
}

// color of a value.
func (d Defaults) color(value float64) string {
	color := "green"
	for _, s := range d.Thresholds.Steps {
		if s.Value == nil || value >= *s.Value {
			color = s.Color
		}
	}
	return color
}
