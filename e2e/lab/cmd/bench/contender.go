package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

// side is one way to keep a VIP and the connections that leave by it, and what can happen
// to the part of it that is on a node.
type side interface {
	// raise returns when traffic flows.
	raise(*world) error
	// whole returns when all gateways are there, one of them holds, and each could take over.
	whole() error
	holder() (int, error)
	stop(j int) error
	pause(j int) error
	resume(j int) error
	kill(j int) error
	start(j int) error
	// lose ends what a power cut left running.
	lose(j int) error
	down() error
}

func (v *vrrp) pause(j int) error  { return v.signal(j, unix.SIGSTOP) }
func (v *vrrp) resume(j int) error { return v.signal(j, unix.SIGCONT) }
func (v *vrrp) kill(j int) error   { return v.end("keepalived", j) }
func (v *vrrp) lose(j int) error {
	return errors.Join(v.end("keepalived", j), v.end("conntrackd", j))
}

// ours is sallyport.
type ours struct{ w *world }

func (o *ours) raise(w *world) error {
	o.w = w
	if err := w.start(); err != nil {
		return err
	}
	return o.whole()
}

func (o *ours) whole() error {
	return lab.Await(patience, func() error {
		holder := 0
		for _, j := range o.w.Options.GatewayNodes {
			if err := o.w.ready(lab.Gateway, j)(); err != nil {
				return err
			}
			s, err := o.w.status(lab.Gateway, j)
			if err != nil {
				return err
			}
			if len(s.VIPs) == 0 || s.VIPs[0].Barred != "" || len(s.VIPs[0].Voters) < len(o.w.Options.GatewayNodes) {
				return fmt.Errorf("n%d does not stand by with all others", j)
			}
			if s.VIPs[0].Held {
				holder = j
			}
		}
		if holder == 0 {
			return errors.New("nobody holds the VIP")
		}
		return (&crowd{w: o.w, holder: holder}).lagging()
	})
}

func (o *ours) holder() (int, error) { return o.w.holder() }

func (o *ours) gateway(j int, act func(*lab.Program) error) error {
	p, err := o.w.Program(lab.Gateway, j)
	if err != nil {
		return err
	}
	return act(p)
}

func (o *ours) stop(j int) error   { return o.gateway(j, (*lab.Program).Stop) }
func (o *ours) pause(j int) error  { return o.gateway(j, (*lab.Program).Pause) }
func (o *ours) resume(j int) error { return o.gateway(j, (*lab.Program).Continue) }
func (o *ours) kill(j int) error   { return o.gateway(j, (*lab.Program).Kill) }
func (o *ours) lose(int) error     { return nil } // the lab ends its own programs
func (o *ours) down() error        { return nil } // with the lab

func (o *ours) start(j int) error {
	_, err := o.w.StartGateway(j)
	return err
}
