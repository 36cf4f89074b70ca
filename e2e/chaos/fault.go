// Package chaos breaks a lab at random, over and over, and watches from outside that
// what Sallyport promises holds: what happens is a function of a seed, and so happens
// again with it.
package chaos

import (
	"fmt"
	"slices"
	"time"
)

// Kind of fault.
type Kind string

// The faults.
const (
	PowerCut      Kind = "power cut and reboot"      // an empty kernel when it is back
	SilentCut     Kind = "link cut, carrier kept"    //
	CarrierCut    Kind = "carrier lost"              //
	GossipCut     Kind = "gossip cut"                // tunnel and partner are reached
	OneWay        Kind = "link cut in one direction" // towards one other node
	Partition     Kind = "partition"                 // one node from the two others
	Isolate       Kind = "all nodes isolated"        // nobody has a quorum
	Loss          Kind = "loss"                      //
	PauseGateway  Kind = "gateway stopped (SIGSTOP)" //
	KillGateway   Kind = "gateway killed"            // SIGKILL: its kernel goes on
	EndGateway    Kind = "gateway ended (SIGTERM)"   //
	HandOver      Kind = "hand-over"                 // sallyport handover
	KillGateways  Kind = "all gateways killed"       // and started at once
	PauseAgent    Kind = "agent stopped (SIGSTOP)"   //
	KillAgent     Kind = "agent killed"              //
	KillAgents    Kind = "all agents killed"         //
	Routes        Kind = "routes changed"            // others come and go, some of them bad
	Pods          Kind = "pods changed"              // an address changes hands
	Reinstall     Kind = "cleanup and reinstall"     // of a node that was drained
	FullDisk      Kind = "state directory full"      //
	SpoiltState   Kind = "state directory corrupted" //
	ForgetfulNode Kind = "state directory lost"      //
)

// Kinds of fault there are.
var Kinds = []Kind{
	PowerCut, SilentCut, CarrierCut, GossipCut, OneWay, Partition, Isolate, Loss, PauseGateway, KillGateway, EndGateway,
	HandOver, KillGateways, PauseAgent, KillAgent, KillAgents, Routes, Pods, Reinstall, FullDisk, SpoiltState, ForgetfulNode,
}

// Role is a node by what it is when the fault strikes.
type Role int

// The roles, for the first VIP. Standbys are told apart by name.
const (
	Holder Role = iota
	Standby1
	Standby2
)

// Roles of a lab: three nodes, each with a gateway and an agent.
var Roles = []Role{Holder, Standby1, Standby2}

func (r Role) String() string { return [...]string{"holder", "first standby", "second standby"}[r] }

// Fault is one thing that goes wrong.
type Fault struct {
	Kind    Kind
	Role    Role // who is struck, or who is to hold; of a fault of all nodes it means nothing
	Other   Role // of OneWay: who hears nothing any more
	Percent int  // of Loss
}

func (f Fault) String() string {
	switch {
	case f.ofAll():
		return string(f.Kind)
	case f.Kind == HandOver && f.Role == Holder:
		return string(f.Kind) + " to anybody"
	case f.Kind == HandOver:
		return fmt.Sprintf("%s to %s", f.Kind, f.Role)
	case f.Kind == OneWay:
		return fmt.Sprintf("%s, %s to %s", f.Kind, f.Role, f.Other)
	case f.Kind == Loss:
		return fmt.Sprintf("%s of %d %%, %s", f.Kind, f.Percent, f.Role)
	}
	return fmt.Sprintf("%s, %s", f.Kind, f.Role)
}

// ofAll: it strikes no node in particular.
func (f Fault) ofAll() bool {
	return slices.Contains([]Kind{Isolate, KillGateways, KillAgents, Routes}, f.Kind)
}

// empties: a kernel loses its connections.
func (f Fault) empties() bool { return f.Kind == PowerCut || f.Kind == Reinstall }

// reach are the nodes whose pods must have their traffic while the fault lasts: a
// quorum is whole, and the nodes reach it.
func (f Fault) reach() []Role {
	switch f.Kind {
	case PowerCut, SilentCut, CarrierCut, Partition, Reinstall:
		return others(f.Role)
	case OneWay: // neither end may reach the other, when that one holds
		return slices.DeleteFunc(others(f.Role), func(r Role) bool { return r == f.Other })
	case Isolate, KillGateways, Loss:
		return nil
	}
	return Roles
}

func others(than Role) []Role {
	return slices.DeleteFunc(slices.Clone(Roles), func(r Role) bool { return r == than })
}

// Step is faults that strike together, last, and are mended. Everything is whole before
// the next one.
type Step struct {
	Number int // from 1
	Faults []Fault
	Hold   time.Duration
	// Await traffic, where it must come back while the faults last, before Hold begins.
	Await bool
}

// Single fault, of which no established connection of a node that stays may know.
func (s Step) Single() bool { return len(s.Faults) == 1 }

// Reach are the nodes whose pods must have their traffic while the step lasts.
func (s Step) Reach() []Role {
	if !s.Single() {
		return nil
	}
	return s.Faults[0].reach()
}

func (s Step) String() string {
	text := fmt.Sprintf("step %d:", s.Number)
	for i, f := range s.Faults {
		if i > 0 {
			text += " with"
		}
		text += " " + f.String()
	}
	text += ", for " + s.Hold.Round(time.Millisecond).String()
	if s.Await {
		text += " after traffic is back"
	}
	return text
}
