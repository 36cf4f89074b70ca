package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// patience is how long a change may take before the demo gives up: much, so that a
// busy machine shows long gaps instead of a failure.
const patience = 15 * time.Second

// demo is what is going on in the lab.
type demo struct {
	*lab.Lab
	screen  *screen
	vip     netip.Addr
	arp     *lab.ARPWatch
	clients []client
	streams []*lab.Stream
	knocks  *lab.Connects // the unselected pod's attempts
	nodes   []int         // where the clients are; the attempts come from the first

	strokes  []outcome
	failures []string
}

// outcome is a row of the summary.
type outcome struct{ fault, moved, gaps, stalls string }

const route = `vip: %s
namespaceSelector: {}
destinations:
- cidr: %s/32
`

// prepare starts the programs and the traffic, and shows who is seen as whom.
func (d *demo) prepare(ctx context.Context) error {
	err := d.Manifests.WriteRoute("payments", fmt.Sprintf(route, d.vip, lab.PartnerAddr))
	for j := 1; j <= d.Options.Nodes && err == nil; j++ {
		err = d.Annotate(selected(j), "payments")
	}
	if err != nil {
		return err
	}
	d.screen.step("starting a gateway and an agent on each node")
	if err := d.StartAll(); err != nil {
		return err
	}
	if d.arp, err = d.WatchARP(pace); err != nil {
		return err
	}
	for j := 1; j <= d.Options.Nodes; j++ {
		if err := d.awaitReady(ctx, j); err != nil {
			return err
		}
	}
	holder, err := d.holder(ctx)
	if err != nil {
		return err
	}
	d.screen.step("%s holds the VIP %s: it alone answers ARP for it", lab.NodeName(holder), d.vip)
	if err := d.callers(ctx); err != nil {
		return err
	}
	return d.startTraffic(ctx, d.Others(holder))
}

// callers shows as whom the partner sees each pod. Unselected ones use the port
// that is kept for them.
func (d *demo) callers(ctx context.Context) error {
	d.screen.print("\n  pod       address       at 203.0.113.5 (admits the VIP only)  at 203.0.113.9 (admits all)\n")
	for _, p := range d.Pods() {
		at := "refused"
		if p.Annotations[lab.RoutesAnnotation] != "" {
			if err := d.seenAsVIP(ctx, p.Name); err != nil {
				return err
			}
			at = "selected, seen as " + d.vip.String()
		} else if as, err := d.httpSource(ctx, p.Name, lab.PartnerAddr, 250*time.Millisecond); err == nil {
			return fmt.Errorf("%s, which is not selected, was admitted as %s", p.Name, as)
		}
		public, err := d.httpSource(ctx, p.Name, lab.PublicAddr, 3*time.Second)
		if err != nil {
			return err
		}
		d.screen.printf("  %-8s  %-12s  %-36s  seen as %s\n", p.Name, p.Addr, at, public)
	}
	d.screen.print("\n")
	return nil
}

func (d *demo) httpSource(ctx context.Context, pod string, to netip.Addr, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, body, err := d.Fetch(ctx, pod, fmt.Sprintf("http://%s", netip.AddrPortFrom(to, lab.HTTPPort)))
	return strings.TrimSpace(string(body)), err
}

// awaitReady waits for node j's two programs.
func (d *demo) awaitReady(ctx context.Context, j int) error {
	return lab.AwaitContext(ctx, patience, func() error {
		return cmp.Or(d.Ready(ctx, lab.Gateway, j), d.Ready(ctx, lab.Agent, j))
	})
}

// holder waits until somebody answers ARP for the VIP.
func (d *demo) holder(ctx context.Context) (j int, err error) {
	err = lab.AwaitContext(ctx, patience, func() error {
		if j = d.arp.Owner(d.vip, 100*time.Millisecond); j == 0 {
			return errors.New("nobody answers ARP for the VIP")
		}
		return nil
	})
	return j, err
}

// fail records what was not as promised and lets the demo go on.
func (d *demo) fail(format string, args ...any) string {
	text := fmt.Sprintf(format, args...)
	d.failures = append(d.failures, text)
	return text
}
