// Package sockops lets a connection that a route takes send its SYN again after a
// fraction of a second. A connection begun while a VIP moves loses its first SYN, and
// by itself it waits a second, however short the move was. A small BPF program answers
// the kernel's question for that time (BPF_SOCK_OPS_TIMEOUT_INIT): for the SYNs of
// selected pods to their routes' destinations, and for nothing else. Established
// connections never ask: their timeout follows from their own round trips.
//
// It lives as long as the process that attached it and leaves nothing behind.
package sockops

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sallyport/sallyport/steer"
)

// Shortest and Longest time before the second SYN. Sooner, every connection to a
// partner that is a continent away would send two; later is what the kernel does.
const (
	Shortest = 50 * time.Millisecond
	Longest  = ordinary
)

// Counts of connections that a route took since the program was attached.
type Counts struct {
	Sooner  uint64 // those that would have sent their second SYN sooner
	Refused uint64 // those for which the kernel did not allow it
}

// Check says what is wrong with a time before the second SYN.
func Check(first time.Duration) error {
	if first < Shortest || first > Longest {
		return fmt.Errorf("--syn-retry %v: choose between %v and %v, or 0 for none", first, Shortest, Longest)
	}
	return nil
}

// Program is attached to a control group.
type Program struct {
	kernel kernel
	link   link.Link
}

// Attach attaches a program to the processes of a control group and of those below it,
// which knows no connection yet.
func Attach(cgroup string, first time.Duration) (*Program, error) {
	if err := Check(first); err != nil {
		return nil, err
	}
	path, err := hierarchy(cgroup)
	if err != nil {
		return nil, err
	}
	k, err := newKernel()
	if err != nil {
		return nil, explain(err)
	}
	l, err := load(k, path, first)
	if err != nil {
		return nil, errors.Join(explain(err), k.close())
	}
	return &Program{kernel: k, link: l}, nil
}

func load(k kernel, path string, first time.Duration) (link.Link, error) {
	instructions, err := program(k, first)
	if err != nil {
		return nil, err
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sally_syn_retry", Type: ebpf.SockOps, AttachType: ebpf.AttachCGroupSockOps, Instructions: instructions, License: "Apache-2.0",
	})
	if err != nil {
		return nil, fmt.Errorf("load a BPF program: %w", err)
	}
	defer p.Close() // the link keeps it
	l, err := link.AttachCgroup(link.CgroupOptions{Path: path, Attach: ebpf.AttachCGroupSockOps, Program: p})
	if err != nil {
		return nil, fmt.Errorf("attach a BPF program to %s: %w", path, err)
	}
	return l, nil
}

// Apply makes the program know these connections, and no others.
func (p *Program) Apply(r steer.Retries) error { return p.kernel.apply(r) }

// Counts since it was attached.
func (p *Program) Counts() (Counts, error) { return p.kernel.counts() }

// Close detaches it.
func (p *Program) Close() error { return errors.Join(p.link.Close(), p.kernel.close()) }
