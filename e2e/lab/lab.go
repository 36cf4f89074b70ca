package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sallyport/sallyport/e2e/netns"
)

// Lab is a network that stands.
type Lab struct {
	Options   Options
	Manifests *Manifests
	Partner   *Partner

	guard    *guard // nil in an attached lab
	spawner  *spawner
	mu       sync.Mutex
	hosts    map[string]*machine
	pods     map[string]*Pod
	programs map[programKey]*Program
	closers  []func() error // clients, watches and captures still running
	// leaveCgroup takes this process out of the lab's control group; nil: it is not in it.
	leaveCgroup func() error
	shift       uint16 // of the partner's ports, see ServeBeside
}

// machine is a namespace that plays a host, and a netlink socket in it.
type machine struct {
	*netns.NS
	nl *netlink.Handle
}

// Up builds a lab, first removing what an interrupted run of the same prefix left
// behind. The caller closes it; should the process die before, a watcher outside of
// it removes everything.
func Up(o Options) (_ *Lab, err error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("lab options: %w", err)
	}
	o = o.withDefaults()
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab needs root for its network namespaces")
	}
	g, err := newGuard(o.Prefix, o.Dir)
	if err != nil {
		return nil, err
	}
	l := newLab(o)
	l.guard, l.spawner = g, newSpawner()
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := removeLeftovers(o.Prefix, o.Dir); err != nil {
		return nil, err
	}
	if o.SYNRetry > 0 {
		args, err := l.joinCgroup()
		if err != nil {
			return nil, err
		}
		l.Options.AgentArgs = append(slices.Clone(o.AgentArgs), args...)
	}
	if err := l.makeFolders(); err != nil {
		return nil, err
	}
	if err := l.build(); err != nil {
		return nil, err
	}
	if l.Partner, err = l.startPartner(); err != nil {
		return nil, err
	}
	return l, l.save()
}

func newLab(o Options) *Lab {
	return &Lab{
		Options:   o,
		Manifests: &Manifests{Dir: filepath.Join(o.Dir, "manifests"), scratch: filepath.Join(o.Dir, "scratch")},
		hosts:     map[string]*machine{}, pods: map[string]*Pod{}, programs: map[programKey]*Program{},
	}
}

// Test gives the test a lab that ends with it, and shows the programs' logs when
// the test fails. It skips, saying so, when not root.
func Test(t testing.TB, o Options) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	l, err := Up(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.LogTails(30))
		}
		if err := l.Close(); err != nil {
			t.Errorf("remove the lab: %v", err)
		}
	})
	return l
}

// Close ends every program and client and removes the lab without a trace.
func (l *Lab) Close() error {
	l.mu.Lock()
	closers := l.closers
	l.closers = nil
	l.mu.Unlock()
	var errs []error
	for _, c := range closers {
		errs = append(errs, c())
	}
	if l.guard == nil { // attached: the lab is another process's
		l.letGo()
		return errors.Join(errs...)
	}
	errs = append(errs, l.killPrograms())
	if l.Partner != nil {
		l.Partner.close()
	}
	l.spawner.close()
	l.letGo()
	if l.leaveCgroup != nil {
		errs = append(errs, l.leaveCgroup())
	}
	errs = append(errs, removeLeftovers(l.Options.Prefix, l.Options.Dir), l.guard.done())
	return errors.Join(errs...)
}

func (l *Lab) letGo() {
	for _, m := range l.hosts {
		m.nl.Close()
		_ = m.FreeHandle()
	}
}

func (l *Lab) onClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// Namespace gives a host of the lab by its short name: n1, pod-1-1, router,
// partner, sw.
func (l *Lab) Namespace(short string) (*netns.NS, error) {
	m, err := l.machine(short)
	if err != nil {
		return nil, err
	}
	return m.NS, nil
}

// Exec runs a program on a host of the lab to its end.
func (l *Lab) Exec(short, name string, args ...string) (string, error) {
	ns, err := l.Namespace(short)
	if err != nil {
		return "", err
	}
	return ns.Run(name, args...)
}

func (l *Lab) machine(short string) (*machine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.hosts[short]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("lab %s has no host %q", l.Options.Prefix, short)
}

// newMachine makes a namespace with lo up.
func (l *Lab) newMachine(short string, sysctls ...string) (*machine, error) {
	ns, err := netns.New(l.fullName(short))
	if err != nil {
		return nil, err
	}
	nl, err := ns.Netlink()
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	m := &machine{NS: ns, nl: nl}
	l.mu.Lock()
	l.hosts[short] = m
	l.mu.Unlock()
	// Duplicate address detection would make an address appear later than it was given.
	if err := ns.Sysctls(append(sysctls, "ipv6/conf/default/accept_dad=0")...); err != nil {
		return nil, err
	}
	lo, err := nl.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo in %s: %w", ns.Name, err)
	}
	return m, nl.LinkSetUp(lo)
}

func (l *Lab) dropMachine(short string) error {
	l.mu.Lock()
	m := l.hosts[short]
	delete(l.hosts, short)
	l.mu.Unlock()
	if m == nil {
		return nil
	}
	m.nl.Close()
	return m.NS.Close()
}

func (l *Lab) fullName(short string) string { return l.Options.Prefix + "-" + short }

// FullName is the name under which `ip netns exec` knows a host of the lab.
func (l *Lab) FullName(short string) string { return l.fullName(short) }

// addrNet is the address with its prefix length in the form netlink wants.
func addrNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}
