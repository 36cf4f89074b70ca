package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// pace of the selected pods' clients, and of the unselected pod's attempts.
const (
	pace      = 5 * time.Millisecond
	knockPace = 100 * time.Millisecond
)

// client is one row of the pictures.
type client struct {
	pod, kind string
	waits     bool // asks nothing while an answer is awaited
	since     func(time.Time) lab.Timeline
	stop      func() lab.Timeline
}

func (c client) String() string { return c.kind + " of " + c.pod }

// Kinds of clients.
const (
	echoKind   = "UDP echo"
	newKind    = "new TCP"
	streamKind = "open TCP"
)

func selected(j int) string   { return fmt.Sprintf("pod-%d-1", j) }
func unselected(j int) string { return fmt.Sprintf("pod-%d-2", j) }

// startTraffic starts the three kinds of clients on each of the nodes given, and on
// the first of them the attempts of a pod that is not selected. They have a port to
// themselves: what else the partner refuses is a leak. It waits until all is answered.
func (d *demo) startTraffic(ctx context.Context, nodes []int) error {
	d.screen.step("starting traffic from %s and %s; attempts of %s, which is not selected",
		selected(nodes[0]), selected(nodes[1]), unselected(nodes[0]))
	d.Partner.Forget()
	d.nodes = nodes
	for _, j := range nodes {
		pod := selected(j)
		e, err := d.StartEcho(pod, lab.PartnerAddr, pace)
		if err != nil {
			return err
		}
		c, err := d.StartConnects(pod, lab.PartnerAddr, pace)
		if err != nil {
			return err
		}
		s, err := d.StartStream(pod, lab.PartnerAddr, pace)
		if err != nil {
			return err
		}
		if err := s.KeepAlive(time.Second); err != nil {
			return fmt.Errorf("set the keepalive of %s: %w", pod, err)
		}
		d.streams = append(d.streams, s)
		d.clients = append(d.clients, client{pod, echoKind, false, e.Since, e.Stop},
			client{pod, newKind, false, c.Since, c.Stop}, client{pod, streamKind, true, s.Since, s.Stop})
	}
	var err error
	d.knocks, err = d.StartConnectsTo(unselected(nodes[0]), netip.AddrPortFrom(lab.PartnerAddr, lab.HTTPPort), knockPace)
	if err != nil {
		return err
	}
	return lab.AwaitContext(ctx, patience, func() error {
		_, err := d.flowing(time.Now().Add(-200 * time.Millisecond))
		return err
	})
}

// stopTraffic gives what each client saw.
func (d *demo) stopTraffic() []lab.Timeline {
	timelines := make([]lab.Timeline, len(d.clients))
	var wg sync.WaitGroup
	for i, c := range d.clients {
		wg.Go(func() { timelines[i] = c.stop() })
	}
	wg.Wait()
	return timelines
}

// holderWithout waits for a holder whose node can be taken away without the clients:
// on a busy machine the VIP may have moved since they were started.
func (d *demo) holderWithout(ctx context.Context) (int, error) {
	for {
		holder, err := d.holder(ctx)
		if err != nil || !slices.Contains(d.nodes, holder) {
			return holder, err
		}
		d.screen.step("%s took the VIP over by itself (a busy machine?); the traffic moves", lab.NodeName(holder))
		d.stopTraffic()
		d.knocks.Stop()
		d.clients, d.streams = nil, nil
		if err := d.startTraffic(ctx, d.Others(holder)); err != nil {
			return 0, err
		}
	}
}

// picture draws every client and the VIP's owner around a moment.
func (d *demo) picture(w window) []string {
	from := w.begin(0).Add(-time.Second) // what was asked before may be awaited still
	lines := []string{
		fmt.Sprintf("%19s%s", "", w.ruler()),
		fmt.Sprintf("  %-17s%s", d.vip.String()+" is", w.owners(d.arp.Utterances(d.vip))),
	}
	for i, c := range d.clients {
		pod := c.pod
		if i > 0 && d.clients[i-1].pod == pod {
			pod = ""
		}
		lines = append(lines, fmt.Sprintf("  %-8s%-9s", pod, c.kind)+d.screen.marks(w.answers(c.since(from), c.waits)))
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

// flowing says since when every client has had an answer that came after a moment.
func (d *demo) flowing(after time.Time) (time.Time, error) {
	var since time.Time
	for _, c := range d.clients {
		first := time.Time{}
		for _, e := range c.since(after.Add(-10 * time.Second)).Exchanges {
			if e.Answered.After(after) && (first.IsZero() || e.Answered.Before(first)) {
				first = e.Answered
			}
		}
		if first.IsZero() {
			return first, fmt.Errorf("no answer to the %s", c)
		}
		if first.After(since) {
			since = first
		}
	}
	return since, nil
}

// gapAfter is the longest stretch without an answer after a moment.
func gapAfter(t lab.Timeline, zero time.Time) time.Duration {
	var longest time.Duration
	last := zero
	for _, at := range t.Answers() {
		if at.After(last) {
			longest, last = max(longest, at.Sub(last)), at
		}
	}
	return longest
}

// seenAsVIP waits until the partner sees a selected pod as the VIP, which takes a
// moment after the start of everything; any other name for it is an error at once.
func (d *demo) seenAsVIP(ctx context.Context, pod string) error {
	var wrong error
	err := lab.AwaitContext(ctx, patience, func() error {
		as, err := d.SeenAs(pod, lab.PartnerAddr, time.Second)
		if err == nil && as != d.vip {
			wrong = fmt.Errorf("the partner saw %s as %s", pod, as)
			return nil
		}
		return err
	})
	if wrong != nil {
		return wrong
	}
	return err
}
