package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sallyport/sallyport/e2e/lab"
)

// strike carries a fault out on node j, and gives what ends it. What was done at the
// switch the lab's Heal ends, for all faults at once.
func (w *world) strike(ctx context.Context, f Fault, at map[Role]int) (mend func() error, err error) {
	nothing := func() error { return nil }
	j := at[f.Role]
	switch f.Kind {
	case SilentCut:
		return nothing, w.CutOutsideSilently(j)
	case CarrierCut:
		return nothing, w.CutOutside(j)
	case GossipCut:
		return nothing, w.CutGossip(j)
	case OneWay:
		return nothing, w.CutOneWay(j, at[f.Other])
	case Partition:
		return nothing, w.Partition(w.Others(j))
	case Isolate:
		return nothing, w.Isolate()
	case Loss:
		return nothing, w.Lose(j, f.Percent)
	case PowerCut:
		_, err := w.PowerCut(j)
		return func() error { w.hangUp(j); return errors.Join(w.Reboot(j), w.start(j)) }, err
	case PauseGateway, PauseAgent:
		p, err := w.Program(role[f.Kind], j)
		if err != nil {
			return nothing, err
		}
		return p.Continue, p.Pause()
	case KillGateway, KillAgent:
		return w.starter(role[f.Kind], j), w.kill(role[f.Kind], j)
	case EndGateway:
		return w.starter(lab.Gateway, j), w.end(lab.Gateway, j)
	case HandOver:
		return nothing, w.handOver(ctx, f.Role, at)
	case KillGateways:
		return nothing, errors.Join(w.kill(lab.Gateway, 1, 2, 3), w.starter(lab.Gateway, 1, 2, 3)())
	case KillAgents:
		return w.starter(lab.Agent, 1, 2, 3), w.kill(lab.Agent, 1, 2, 3)
	case Routes:
		return w.changeRoutes()
	case Pods:
		return nothing, w.changePods(ctx, j)
	case Reinstall:
		return w.reinstall(j)
	case FullDisk:
		err := w.endBoth(j)
		for _, r := range bothRoles {
			if err == nil {
				_, err = w.StartOnFullDisk(r, j)
			}
		}
		// Killed, since one that has only just started dies of a SIGTERM, too.
		return func() error {
			return errors.Join(w.kill(lab.Agent, j), w.kill(lab.Gateway, j), w.start(j))
		}, err
	case SpoiltState:
		return nothing, errors.Join(w.kill(lab.Gateway, j), w.kill(lab.Agent, j), w.spoil(j), w.start(j))
	case ForgetfulNode:
		return nothing, errors.Join(w.kill(lab.Gateway, j), w.kill(lab.Agent, j),
			os.RemoveAll(w.StateDir(lab.Gateway, j)), os.RemoveAll(w.StateDir(lab.Agent, j)), w.start(j))
	}
	return nothing, fmt.Errorf("nothing is known of the fault %q", f.Kind)
}

// handOver gives the first VIP to the node of a role; the holder's stands for anybody.
// Who holds is asked again each time, for an election may come first on a busy machine.
func (w *world) handOver(ctx context.Context, to Role, at map[Role]int) error {
	args := []string{"handover", "--vip", tcpVIP.String()}
	if to != Holder {
		args = append(args, "--to", lab.NodeName(at[to]))
	}
	return w.await(ctx, backWithin, func() error {
		j, _, err := w.holder(ctx, tcpVIP)
		if err == nil && (to == Holder || j != at[to]) {
			_, err = w.Exec(lab.NodeName(j), w.Options.Binary, args...)
		}
		return err
	})
}

var (
	role      = map[Kind]lab.Role{PauseGateway: lab.Gateway, KillGateway: lab.Gateway, PauseAgent: lab.Agent, KillAgent: lab.Agent}
	bothRoles = []lab.Role{lab.Gateway, lab.Agent}
)

func (w *world) starter(role lab.Role, nodes ...int) func() error {
	return func() error {
		var errs []error
		for _, j := range nodes {
			_, err := w.Start(role, j)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
}

func (w *world) start(j int) error {
	return errors.Join(w.starter(lab.Gateway, j)(), w.starter(lab.Agent, j)())
}

func (w *world) kill(role lab.Role, nodes ...int) error {
	var errs []error
	for _, j := range nodes {
		p, err := w.Program(role, j)
		if err == nil {
			err = p.Kill()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (w *world) end(role lab.Role, j int) error {
	p, err := w.Program(role, j)
	if err != nil {
		return err
	}
	return p.Stop()
}

func (w *world) endBoth(j int) error { return errors.Join(w.end(lab.Agent, j), w.end(lab.Gateway, j)) }

func (w *world) spoil(j int) error {
	const half = `{"routes": [{"name": "half a vi`
	return errors.Join(w.SpoilState(lab.Gateway, j, half), w.SpoilState(lab.Agent, j, half))
}
