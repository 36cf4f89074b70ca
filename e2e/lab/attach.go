package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/e2e/netns"
)

// saved is what another process needs to know of a lab.
type saved struct {
	Options Options
	Pods    []*Pod
}

func (l *Lab) savedFile() string { return filepath.Join(l.Options.Dir, "lab.json") }

// save writes what Attach reads.
func (l *Lab) save() error {
	s := saved{Options: l.Options, Pods: l.Pods()}
	s.Options.Log = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("describe the lab: %w", err)
	}
	if err := os.WriteFile(l.savedFile()+".new", text, 0o644); err != nil {
		return fmt.Errorf("describe the lab: %w", err)
	}
	return os.Rename(l.savedFile()+".new", l.savedFile())
}

// saveChange is save, but for the pods that a lab is born with.
func (l *Lab) saveChange() error {
	if l.guard != nil && l.Partner == nil {
		return nil
	}
	return l.save()
}

// Attach gives a lab that another process keeps up: faults, programs and manifests
// work, the partner's servers are the other's. Closing it leaves the lab up.
func Attach(prefix string) (_ *Lab, err error) {
	l := newLab(Options{Prefix: prefix}.withDefaults())
	text, err := os.ReadFile(l.savedFile())
	if err != nil {
		return nil, fmt.Errorf("no lab of prefix %s is up: %w", l.Options.Prefix, err)
	}
	var s saved
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", l.savedFile(), err)
	}
	l = newLab(s.Options.withDefaults())
	defer func() {
		if err != nil {
			l.letGo()
		}
	}()
	names, err := netns.Names(l.Options.Prefix + "-")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		ns, err := netns.Open(name)
		if err != nil {
			return nil, err
		}
		nl, err := ns.Netlink()
		if err != nil {
			return nil, errors.Join(err, ns.FreeHandle())
		}
		l.hosts[name[len(l.Options.Prefix)+1:]] = &machine{NS: ns, nl: nl}
	}
	for _, p := range s.Pods {
		if m := l.hosts[p.Name]; m != nil {
			p.ns = m.NS
			l.pods[p.Name] = p
		}
	}
	return l, nil
}

// ServeBeside starts the partner's servers in this process too, on ports that are higher
// by shift, and leads the clients to them that this process starts: both ends of what it
// measures are its own, and the lab's process and its load are not in the way.
func (l *Lab) ServeBeside(shift uint16) error {
	m, err := l.machine(PartnerHost)
	if err != nil {
		return err
	}
	p := newPartner(m.NS)
	l.onClose(func() error { p.close(); return nil })
	l.shift = shift
	return p.serve(shift)
}

// Down removes the lab of the prefix whatever state it is in, also while the
// process that made it still runs.
func Down(prefix string) error {
	o := Options{Prefix: prefix}.withDefaults()
	if err := o.Validate(); err != nil {
		return err
	}
	return removeLeftovers(o.Prefix, o.Dir)
}
