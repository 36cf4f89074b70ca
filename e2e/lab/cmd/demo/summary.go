package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/e2e/lab"
)

// summary ends the traffic, adds up, and says what was not as promised.
func (d *demo) summary() error {
	d.screen.title("the traffic is stopped. What came of it:")
	timelines := d.stopTraffic()
	tries := d.knocks.Stop()
	d.arp.Stop()

	d.screen.print("\n")
	d.row("connections admitted", d.sources(lab.ServiceTCP))
	d.row("UDP packets admitted", d.sources(lab.ServiceUDP))
	d.row("new connections", d.newConnections(timelines))
	d.row("open connections kept", d.kept())
	d.refused(tries)
	d.row("holders at a time", d.owners())
	d.screen.printf("\n  %-10s  %-8s  %-26s  %s\n", "fault", "VIP", "gaps of the two echoes", "the two open connections")
	for _, o := range d.strokes {
		d.screen.printf("  %-10s  %-8s  %-26s  %s\n", o.fault, o.moved, o.gaps, o.stalls)
	}
	d.screen.print("\n")
	if share := d.screen.busy(); share > 0.4 {
		d.screen.printf("  Processors were short for %.0f %% of the time: on an idle machine the gaps are shorter.\n\n", share*100)
	}
	if d.failures != nil {
		return errors.New(strings.Join(d.failures, "; "))
	}
	return nil
}

func (d *demo) row(what, how string) { d.screen.printf("  %-24s %s\n", what, how) }

// newConnections says what became of them. One that is made in the moment of a fault
// can expire: it waits for the partner's first word, and the holder that knew it is
// gone. Any other failure is not as promised.
func (d *demo) newConnections(timelines []lab.Timeline) string {
	var asked, again, expired, unfinished int
	var reset error
	for i, t := range timelines {
		if d.clients[i].kind != newKind {
			continue
		}
		for _, e := range t.Exchanges {
			asked++
			switch {
			case errors.Is(e.Err, os.ErrDeadlineExceeded) && t.End.Sub(e.Sent) < lab.ConnectTimeout:
				unfinished++ // the stop ended it
			case errors.Is(e.Err, os.ErrDeadlineExceeded):
				expired++
			case e.Err != nil:
				reset = e.Err
			case e.Latency() > lateAfter:
				again++
			}
		}
	}
	if reset != nil {
		return d.fail("a new connection failed: %v", reset)
	}
	text := fmt.Sprintf("%d begun, none refused; %d of them late (TCP asked again)", asked, again)
	if expired+unfinished > 0 {
		text += fmt.Sprintf(",\n%27s%d expired and %d were waiting at the end: the holder died between\n%27stheir first packet and the partner's first word", "", expired, unfinished, "")
	}
	return text
}

// sources says from whom the partner's servers took what they took.
func (d *demo) sources(service string) string {
	seen := d.Partner.Seen(service)
	if len(seen) == 1 && seen[d.vip] > 0 {
		return fmt.Sprintf("%d, all from %s", seen[d.vip], d.vip)
	}
	var parts []string
	for _, a := range slices.SortedFunc(maps.Keys(seen), netip.Addr.Compare) {
		parts = append(parts, fmt.Sprintf("%d from %s", seen[a], a))
	}
	d.fail("the partner took %s traffic %s, and not from %s only", service, strings.Join(parts, ", "), d.vip)
	return strings.Join(parts, ", ")
}

func (d *demo) kept() string {
	kept := 0
	for _, s := range d.streams {
		if err := s.Broken(); err != nil {
			d.fail("the open connection of %s broke: %v", s.Local().Addr(), err)
			continue
		}
		kept++
	}
	return fmt.Sprintf("%d of %d, through %d faults", kept, len(d.streams), len(d.strokes))
}

// refused tells the unselected pods' attempts, which have a port of their own, from
// everything else that the partner's filter did not admit.
func (d *demo) refused(tries lab.Timeline) {
	refusals, err := d.Partner.Refused()
	if err != nil {
		d.fail("%v", err)
		return
	}
	var attempts, leaks uint64
	var from, wrong []string
	for _, r := range refusals {
		if r.Port == lab.HTTPPort && r.Protocol == "tcp" {
			attempts += r.Packets
			from = append(from, fmt.Sprintf("%d from %s", r.Packets, r.Source))
			continue
		}
		leaks += r.Packets
		wrong = append(wrong, fmt.Sprintf("%d %s packets from %s to port %d", r.Packets, r.Protocol, r.Source, r.Port))
	}
	admitted := len(tries.Exchanges) - tries.Lost()
	d.row("not selected: refused", fmt.Sprintf("%d of %d connections of %s", tries.Lost(), len(tries.Exchanges), unselected(d.nodes[0])))
	d.row("", "packets of all pods not selected: "+strings.Join(from, ", "))
	if admitted > 0 || attempts == 0 {
		d.fail("of the unselected pod's %d attempts the partner admitted %d and refused %d packets", len(tries.Exchanges), admitted, attempts)
	}
	d.row("other wrong sources", fmt.Sprintf("%d packets (a leak of a selected pod would be here)", leaks))
	if leaks > 0 {
		d.fail("packets with a wrong source at the partner: %s", strings.Join(wrong, ", "))
	}
}

// owners says whom the partner's segment heard answer for the VIP.
func (d *demo) owners() string {
	var names []string
	for _, t := range d.arp.Owners(d.vip) {
		names = append(names, lab.NodeName(t.Node))
	}
	text := fmt.Sprintf("never two: %s, in %d ARP answers", strings.Join(names, " > "), len(d.arp.Utterances(d.vip)))
	if v := d.arp.Violations(); len(v) > 0 {
		text = d.fail("two holders at a time: %s", v[0])
	}
	if unasked := len(names) - 1 - len(d.strokes); unasked > 0 {
		text += fmt.Sprintf("; %d changes without a fault of ours", unasked)
	}
	return text
}
