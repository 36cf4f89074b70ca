package election

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config is one member's.
type Config struct {
	// ID is the member's name, unique in the group and the same after a restart.
	// Two live members of one name can break every promise; see Problems.
	ID string
	// Incarnation tells one life of the process from the next: random, never zero.
	Incarnation uint64
	// Replicas is how many members the group is meant to have, alive or not; the
	// quorum is Replicas/2+1. A wrong value here is two holders, not a degraded group.
	Replicas int
	Timing   Timing
	// VIPs that the group holds; those that other members do not know are never
	// held with their help.
	VIPs []string
	// Voters names all the voters where they are known beforehand, Replicas of them:
	// then no newcomer ever takes a seat. Empty: the first Replicas names that meet
	// have the seats. Danger: that alone is not safe when more than Replicas members
	// run, and some of them restart within a partition that lets them meet only
	// each other.
	Voters []string
	// Seed of the jitter of candidacies. Equal seed and input give equal output.
	Seed uint64
	// Forget is how long a member keeps its seat among the voters unheard, when it
	// did not say that it leaves; 0 is ten minutes. Only members beyond Replicas
	// wait for seats. Danger: a partition that lasts longer, with replacements of
	// other names joining its smaller side, gives each side a quorum.
	Forget time.Duration
}

// Validate joins everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.ID == "" || len(c.ID) > MaxName {
		errs = append(errs, fmt.Errorf("id %q: must have 1 to %d bytes", c.ID, MaxName))
	}
	if c.Incarnation == 0 {
		errs = append(errs, errors.New("incarnation: must not be zero"))
	}
	if c.Replicas < 1 || c.Replicas > MaxReplicas {
		errs = append(errs, fmt.Errorf("replicas %d: must be between 1 and %d", c.Replicas, MaxReplicas))
	}
	if c.Forget < 0 {
		errs = append(errs, fmt.Errorf("forget %v: must not be negative", c.Forget))
	}
	if n := len(c.Voters); n > 0 && n != c.Replicas {
		errs = append(errs, fmt.Errorf("voters %q: are %d, replicas are %d", c.Voters, n, c.Replicas))
	}
	for i, id := range c.Voters {
		if id == "" || len(id) > MaxName || slices.Contains(c.Voters[:i], id) {
			errs = append(errs, fmt.Errorf("voter %q: must have 1 to %d bytes and be given once", id, MaxName))
		}
	}
	for i, vip := range c.VIPs {
		if vip == "" || len(vip) > MaxName {
			errs = append(errs, fmt.Errorf("vip %q: must have 1 to %d bytes", vip, MaxName))
		}
		if slices.Contains(c.VIPs[:i], vip) {
			errs = append(errs, fmt.Errorf("vip %q: is given twice", vip))
		}
	}
	if err := c.Timing.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("timing: %w", err))
	}
	return errors.Join(errs...)
}

// rules are the numbers that safety rests on. They are apart from Config so that
// the simulation can take one out and show that it notices.
type rules struct {
	promise time.Duration // how long a voter keeps to a leader
	wait    time.Duration // how long one that may have forgotten a promise abstains
	span    time.Duration // how long a leader acts on promises
	quorum  int
}

func (c Config) rules() rules {
	return rules{promise: c.Timing.Lease, wait: c.Timing.Lease, span: c.Timing.Span(), quorum: c.Replicas/2 + 1}
}
