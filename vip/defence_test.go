package vip

import (
	"testing"
	"time"
)

func TestDefence(t *testing.T) {
	const ms = time.Millisecond
	type word struct {
		at, since         time.Duration
		answered          bool
		foreign, announce bool
	}
	for _, c := range []struct {
		name  string
		words []word
	}{
		{"the last holder, late", []word{{at: 10 * ms}, {at: 999 * ms}}},
		{"another host", []word{{at: time.Second, foreign: true, announce: true}}},
		{"an answer to a probe", []word{{at: 10 * ms, answered: true, foreign: true, announce: true}}},
		{"a host that goes on", []word{
			{at: 60 * time.Second, foreign: true, announce: true},
			{at: 60*time.Second + ms, foreign: true},
			{at: 70*time.Second - ms, foreign: true},
			{at: 70 * time.Second, foreign: true, announce: true},
			{at: 71 * time.Second, foreign: true},
		}},
		{"claimed anew within the interval", []word{
			{at: 60 * time.Second, foreign: true, announce: true},
			{at: 63 * time.Second, since: 62*time.Second + ms},
			{at: 64 * time.Second, since: 62 * time.Second, foreign: true},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Defence
			for i, w := range c.words {
				if foreign, announce := d.Heard(w.at, w.since, w.answered); foreign != w.foreign || announce != w.announce {
					t.Errorf("word %d: foreign %v, announce %v, want %v, %v", i, foreign, announce, w.foreign, w.announce)
				}
			}
		})
	}
}
