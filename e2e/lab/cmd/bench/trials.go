package main

import (
	"fmt"
	"slices"
	"time"
)

// trials are the values of one figure, in the order they were measured.
type trials []float64

// quantile is the value at the nearest rank.
func (t trials) quantile(q float64) float64 {
	if len(t) == 0 {
		return 0
	}
	all := slices.Sorted(slices.Values(t))
	rank := int(q*float64(len(all)) + 0.999999)
	return all[min(max(rank, 1), len(all))-1]
}

func (t trials) median() float64 { return t.quantile(0.5) }

// reached is what 95 % of the trials reached, where more is better.
func (t trials) reached() float64 {
	less := make(trials, len(t))
	for i, v := range t {
		less[i] = -v
	}
	return -less.quantile(0.95)
}

// against are the ratios to another figure, trial by trial of the same round.
func (t trials) against(base trials) trials {
	var ratios trials
	for i := range min(len(t), len(base)) {
		if base[i] != 0 {
			ratios = append(ratios, t[i]/base[i])
		}
	}
	return ratios
}

func (t *trials) add(d time.Duration) { *t = append(*t, d.Seconds()) }

// millis renders median and p95 in milliseconds.
func (t trials) millis() string { return t.inMillis("%.0f") }

func (t trials) inMillis(format string) string {
	if len(t) == 0 {
		return "none"
	}
	return fmt.Sprintf(format+" / "+format, t.median()*1e3, t.quantile(0.95)*1e3)
}

// verdict is whether a target was met, and by what.
func verdict(what string, value, target float64, met bool, format string) string {
	word := "**missed**"
	if met {
		word = "met"
	}
	return fmt.Sprintf("- %s: "+format+", target "+format+": %s\n", what, value, target, word)
}
