package vxlan

import (
	"context"
	"errors"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// Cleanup removes every rule, route and device of ours from the network namespace
// it is called in, whatever version or configuration made them.
func Cleanup(ctx context.Context, log *slog.Logger) (err error) {
	c, err := dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()

	// Rules go before what they lead to. What cannot be listed or removed must not
	// keep the rest.
	var errs []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		errs = append(errs, c.removeAll(ctx, func() (reqs []request, err error) {
			rules, err := c.rules(family)
			for _, r := range rules {
				log.Info("ip rule of ours found", "rule", ruleString(r.Rule))
				reqs = append(reqs, deleteRule(r))
			}
			return reqs, err
		}))
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		errs = append(errs, c.removeAll(ctx, func() (reqs []request, err error) {
			routes, err := c.routes(family, 0, Protocol, 0)
			for i := range routes {
				reqs = append(reqs, deleteRoute(&routes[i]))
			}
			if len(reqs) > 0 {
				log.Info("routes of ours found", "count", len(reqs))
			}
			return reqs, err
		}))
	}
	links, err := c.links()
	errs = append(errs, err)
	for _, l := range links {
		if ours(l) {
			errs = append(errs, c.change(ctx, []request{deleteLink(l)}))
			log.Info("tunnel device removed", "device", l.name)
		}
	}
	return errors.Join(errs...)
}

// Rules lists the ip rules of ours in the network namespace it is called in, whatever version
// or configuration made them.
func Rules() (all []tunnel.Rule, err error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		rules, err := c.rules(family)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			all = append(all, r.Rule)
		}
	}
	return all, nil
}

// removeAll removes what is listed until nothing is: a removal may hit another of
// the list and be in vain for its own.
func (c *conn) removeAll(ctx context.Context, list func() ([]request, error)) error {
	for range rounds {
		reqs, err := list()
		if err != nil || len(reqs) == 0 {
			return err
		}
		if err := c.change(ctx, reqs); err != nil {
			return err
		}
	}
	return errors.New("what is removed keeps coming back: is a sallyport program still running on this host?")
}
