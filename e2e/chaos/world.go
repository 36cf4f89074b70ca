package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway/host"
)

// How long anything may take, on a machine with much else to do.
const (
	backWithin  = 45 * time.Second // traffic, while faults last and a quorum is whole
	wholeWithin = 90 * time.Second // everything, once faults have ended
	look        = 50 * time.Millisecond
)

const allRoutes = "payments,kyc,ping"

// routes of the selected pods, the last for what no other takes. With more than that they take a public destination, too,
// which nobody asks for.
func (w *world) writeRoutes(more string) error {
	return errors.Join(
		w.Manifests.WriteRoute("payments", fmt.Sprintf(`
vip: %s
namespaceSelector: {}
destinations:
- cidr: %s/32
  ports: [{protocol: TCP, port: %d, endPort: %d}]
%s`, tcpVIP, lab.PartnerAddr, lab.TCPPort, lab.PushPort, more)),
		w.Manifests.WriteRoute("kyc", fmt.Sprintf(`
vip: %s
namespaceSelector: {}
destinations:
- cidr: %s/32
  ports: [{protocol: UDP, port: %d}]
%s`, udpVIP, lab.PartnerAddr, lab.UDPPort, more)),
		w.Manifests.WriteRoute("ping", fmt.Sprintf(`
vip: %s
namespaceSelector: {}
destinations: [{cidr: %s/32}]
`, udpVIP, lab.PartnerAddr)))
}

// world is a lab with everything running, traffic from every node, and somebody who
// listens on the segment.
type world struct {
	*lab.Lab
	arp        *lab.ARPWatch
	talkers    map[int]*talker // by node; none for one whose pods are new
	generation map[int]int
}

func build(ctx context.Context, o lab.Options) (_ *world, err error) {
	o.VIPs, o.Nodes = []netip.Addr{tcpVIP, udpVIP}, len(Roles)
	l, err := lab.Up(o)
	if err != nil {
		return nil, err
	}
	w := &world{Lab: l, talkers: map[int]*talker{}, generation: map[int]int{}}
	errs := []error{w.writeRoutes("")}
	for j := 1; j <= w.Options.Nodes; j++ {
		errs = append(errs, w.Annotate(selected(j), allRoutes))
	}
	if w.arp, err = w.WatchARP(10 * time.Millisecond); err == nil {
		err = w.StartAll()
	}
	if err = errors.Join(append(errs, err)...); err == nil {
		err = w.whole(ctx, func(time.Time) error { return nil })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, l.LogTails(5)), l.Close())
	}
	return w, nil
}

// whole waits until every program is ready, all traffic flows, and every gateway has all
// of it in its kernel.
func (w *world) whole(ctx context.Context, kept func(since time.Time) error) error {
	return w.await(ctx, wholeWithin, func() error {
		for j := 1; j <= w.Options.Nodes; j++ {
			if err := errors.Join(w.Ready(ctx, lab.Agent, j), w.Ready(ctx, lab.Gateway, j)); err != nil {
				return err
			}
		}
		return nil
	}, w.flows(kept, 1, 2, 3), w.inStep(ctx), w.everywhere)
}

// await conditions one after the other, each for at most the bound. A violation ends it.
func (w *world) await(ctx context.Context, bound time.Duration, conditions ...func() error) error {
	for _, c := range conditions {
		var found error
		err := lab.AwaitEvery(ctx, look, bound, func() error {
			err := c()
			if v := (violation{}); errors.As(err, &v) {
				found, err = err, nil
			}
			return err
		})
		if err := errors.Join(found, err); err != nil {
			return err
		}
	}
	return nil
}

// talk starts the traffic of node j.
func (w *world) talk(j int) error {
	// A port of an attempt before may still be known; those of the others are to clash.
	w.generation[j]++
	for _, g := range w.generation {
		w.generation[j] = max(w.generation[j], g)
	}
	t, err := talk(w.Lab, j, w.generation[j])
	if err == nil {
		w.talkers[j] = t
	}
	return err
}

func (w *world) hangUp(j int) {
	if t := w.talkers[j]; t != nil {
		t.hangUp()
		delete(w.talkers, j)
	}
}

// flows is the condition that all traffic of the nodes has been answered that was asked
// after it was looked at first. Nodes that have none begin.
func (w *world) flows(kept func(since time.Time) error, nodes ...int) func() error {
	var since time.Time
	return func() error {
		if since.IsZero() {
			since = time.Now()
		}
		if err := kept(since); err != nil {
			return err
		}
		for _, j := range nodes {
			if w.talkers[j] == nil {
				if err := w.talk(j); err != nil {
					return err
				}
			}
			if err := w.talkers[j].back(since); err != nil {
				return err
			}
		}
		return nil
	}
}

// inStep says which VIP has no holder, or a standby that has not all of its connections.
func (w *world) inStep(ctx context.Context) func() error {
	return func() error {
		for _, vip := range w.Options.VIPs {
			_, v, err := w.holder(ctx, vip)
			if err != nil {
				return err
			}
			standbys := 0
			for _, s := range v.Replication.Standbys {
				if s.InStep && s.LagSeconds == 0 {
					standbys++
				}
			}
			if standbys != w.Options.Nodes-1 {
				return fmt.Errorf("of %s, %d standbys are in step: %+v", vip, standbys, v.Replication.Standbys)
			}
		}
		return nil
	}
}

// holder is the node whose gateway says that it holds the VIP, and what it says.
func (w *world) holder(ctx context.Context, vip netip.Addr) (int, host.VIP, error) {
	for _, j := range w.Options.GatewayNodes {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, body, err := w.Get(ctx, lab.Gateway, j, "/status")
		cancel()
		var s host.Status
		if err != nil || json.Unmarshal(body, &s) != nil {
			continue
		}
		for _, v := range s.VIPs {
			if v.VIP == vip && v.Held && v.Replication != nil {
				return j, v, nil
			}
		}
	}
	return 0, host.VIP{}, fmt.Errorf("nobody says that it holds %s", vip)
}

// places gives the node of each role.
func (w *world) places(ctx context.Context) (at map[Role]int, err error) {
	err = w.await(ctx, backWithin, func() error {
		j, _, err := w.holder(ctx, tcpVIP)
		at = map[Role]int{Holder: j}
		return err
	})
	if err == nil {
		rest := w.Others(at[Holder])
		slices.Sort(rest)
		at[Standby1], at[Standby2] = rest[0], rest[1]
	}
	return at, err
}
