package dashboard

import (
	"math"
	"strconv"
	"strings"
)

// scale is a size that numbers of a unit are told in.
type scale struct {
	size float64
	name string
}

// scales from the largest on; the last is for all that is smaller.
var scales = map[string][]scale{
	"s":           {{86400, " d"}, {3600, " h"}, {60, " min"}, {1, " s"}, {1e-3, " ms"}, {1e-6, " µs"}},
	"Bps":         {{1e9, " GB/s"}, {1e6, " MB/s"}, {1e3, " kB/s"}, {1, " B/s"}},
	"pps":         {{1e6, " Mp/s"}, {1e3, " kp/s"}, {1, " p/s"}},
	"percentunit": {{0.01, " %"}},
}

// text of a value in a unit of Grafana's.
func text(value float64, unit string) string {
	if value == 0 {
		return "0"
	}
	list := scales[unit]
	for i, s := range list {
		if i == len(list)-1 || math.Abs(value) >= s.size*(1-1e-9) {
			return number(value/s.size) + s.name
		}
	}
	return number(value)
}

// number with three digits that count.
func number(v float64) string {
	if math.Abs(v) >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	s := strconv.FormatFloat(v, 'g', 3, 64)
	if rounded, err := strconv.ParseFloat(s, 64); err == nil && strings.Contains(s, "e") {
		return strconv.FormatFloat(rounded, 'f', -1, 64)
	}
	return s
}

// ticks are round numbers from 0, the last at or above the greatest value.
func ticks(greatest float64) []float64 {
	if greatest <= 0 {
		return []float64{0, 1}
	}
	rough := greatest / 4
	power := math.Pow(10, math.Floor(math.Log10(rough)))
	step := 10 * power
	for _, m := range []float64{5, 2, 1} {
		if rough <= m*power*(1+1e-9) {
			step = m * power
		}
	}
	all := []float64{0}
	for i := 1; all[i-1] < greatest*(1-1e-9); i++ {
		all = append(all, float64(i)*step)
	}
	return all
}
