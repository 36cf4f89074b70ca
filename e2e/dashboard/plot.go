package dashboard

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/prometheus"
)

// palette of the lines.
var palette = []string{"#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d", "#37872d", "#e02f44"}

// plot is lines over time.
type plot struct {
	Left, Top, Right, Bottom int
	Marks, Times             []mark
	Lines                    []line
}

// mark on an axis.
type mark struct {
	At   float64
	Text string
}

type line struct{ Name, Color, Path string }

func newPlot(wide, high int, all []named, unit string, span Span) *plot {
	p := &plot{Left: 60, Top: 34, Right: wide - 30, Bottom: high - 54}
	for i := range 5 {
		share := float64(i) / 4
		at := span.From.Add(time.Duration(share * float64(span.To.Sub(span.From))))
		p.Times = append(p.Times, mark{p.x(share), at.UTC().Format("15:04:05")})
	}
	greatest := 0.0
	for _, s := range all {
		for _, v := range s.Values {
			if drawable(v) {
				greatest = max(greatest, v.Value)
			}
		}
	}
	marks := ticks(greatest)
	top := marks[len(marks)-1]
	for _, m := range marks {
		p.Marks = append(p.Marks, mark{p.y(m / top), text(m, unit)})
	}
	for i, s := range all {
		p.Lines = append(p.Lines, line{s.name, palette[i%len(palette)], p.path(s.Values, span, top)})
	}
	return p
}

func drawable(v prometheus.Sample) bool { return !math.IsNaN(v.Value) && !math.IsInf(v.Value, 0) }

func (p *plot) x(share float64) float64 { return float64(p.Left) + share*float64(p.Right-p.Left) }
func (p *plot) y(share float64) float64 { return float64(p.Bottom) - share*float64(p.Bottom-p.Top) }

// path of a line, broken where there are no values. A value alone is a dot.
func (p *plot) path(values []prometheus.Sample, span Span, top float64) string {
	var out strings.Builder
	var last time.Time
	for _, v := range values {
		if !drawable(v) {
			continue
		}
		x, y := p.x(v.At.Sub(span.From).Seconds()/span.To.Sub(span.From).Seconds()), p.y(v.Value/top)
		if last.IsZero() || v.At.Sub(last) > span.Step*3/2 {
			fmt.Fprintf(&out, "M%.1f %.1fh.1", x, y)
		}
		fmt.Fprintf(&out, "L%.1f %.1f", x, y)
		last = v.At
	}
	return out.String()
}
