package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/steer/tcx"
	"github.com/sallyport/sallyport/tunnel"
)

// fastPath carries established connections beside netfilter. Nothing else depends on it:
// what it cannot do is a problem, and their packets take the slow path.
type fastPath struct {
	on    bool
	node  string
	local netip.Addr
	cfg   tunnel.Config
	log   *slog.Logger

	path      *tcx.Path // nil: off, or not possible here
	following sync.WaitGroup
	state     tcx.State // applied last
	index     int       // of the tunnel's device then
	looked    time.Time // when

	mu     sync.Mutex
	counts [2]tcx.Count // of paths before this one, and of this one
	failed error
	marred error // of connections that could not be let go
}

// apply comes after the rules: what it takes away is judged anew by them.
func (f *fastPath) apply(plan gateway.Plan, tenancy *gateway.Tenancy, ends []tunnel.Remote) {
	if f.on {
		f.set(beside(plan, tenancy.Homes(), ends), time.Now())
	}
}

// beside is what the fast path is about in a view.
func beside(plan gateway.Plan, homes map[netip.Addr]gateway.Home, ends []tunnel.Remote) tcx.State {
	s := tcx.State{Homes: map[netip.Addr]int{}, Peers: plan.Peers}
	for _, p := range plan.Pods {
		if home := homes[p.Addr]; home.Interface != 0 {
			s.Homes[p.Addr] = home.Interface
		}
	}
	for _, e := range ends {
		s.Remotes = append(s.Remotes, e.Inside)
	}
	return s
}

// look is how long a node that stays as it is goes without its interfaces being listed:
// most views differ in pods of other nodes only.
const look = 10 * time.Second

func (f *fastPath) set(s tcx.State, now time.Time) {
	device, err := netlink.LinkByName(f.cfg.Device)
	if err == nil && f.path != nil && f.failed == nil && device.Attrs().Index == f.index && s.Equal(f.state) && now.Sub(f.looked) < look {
		return
	}
	err = f.open()
	if err == nil {
		err = f.path.Apply(s)
		f.state, f.index, f.looked = s, f.path.Device().Index, now
	}
	f.note(&f.failed, err)
}

// open the path anew when the device is another.
func (f *fastPath) open() error {
	d, err := tcx.Find(f.cfg, f.local)
	if err != nil || f.path != nil && f.path.Device() == d {
		return err
	}
	f.close()
	path, err := tcx.Open(d)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.path = path
	f.mu.Unlock()
	f.following.Go(func() { f.follow(path) })
	f.log.Info("established connections go beside netfilter", "device", f.cfg.Device, "past_the_device", d.Underlay != 0)
	return nil
}

// follow lets connections go that are worth it: connection tracking must not judge the
// windows of one of which it does not see every packet.
func (f *fastPath) follow(p *tcx.Path) {
	for {
		flow, err := p.Long()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil {
			err = conntrack.Update(conntrack.Entry{Original: conntrack.Tuple{
				Src: flow.Src.Addr(), Dst: flow.Dst.Addr(), SrcPort: flow.Src.Port(), DstPort: flow.Dst.Port(), Protocol: unix.IPPROTO_TCP,
			}})
			if err == nil {
				err = p.Let(flow)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // it ended meanwhile
		}
		f.note(&f.marred, err)
	}
}

func (f *fastPath) note(as *error, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && (*as == nil || (*as).Error() != err.Error()) {
		f.log.Warn("established connections take the slow path", "error", err)
	}
	*as = err
}

func (f *fastPath) describe(s *host.Status) {
	if !f.on {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &host.FastPath{}
	err := errors.Join(f.failed, f.marred)
	sum := f.counts
	if f.path != nil {
		o, i, countErr := f.path.Counts()
		sum = [2]tcx.Count{plus(sum[0], o), plus(sum[1], i)}
		err = errors.Join(err, countErr)
		flows, flowsErr := f.path.Flows()
		err = errors.Join(err, flowsErr)
		out.On, out.Flows = f.failed == nil, flows
	}
	out.PacketsOut, out.BytesOut, out.PacketsIn, out.BytesIn = sum[0].Packets, sum[0].Bytes, sum[1].Packets, sum[1].Bytes
	s.FastPath = out
	if err != nil {
		s.Problems = append(s.Problems, gateway.Problem{
			Object: "Node " + f.node, Field: "--fast-path", Reason: gateway.Misconfigured,
			Message: fmt.Sprintf("%s; until then, or without --fast-path, all packets pass netfilter", err),
		})
	}
}

func plus(a, b tcx.Count) tcx.Count {
	return tcx.Count{Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes}
}

func (f *fastPath) close() {
	f.mu.Lock()
	path := f.path
	if path != nil {
		if o, i, err := path.Counts(); err == nil {
			f.counts = [2]tcx.Count{plus(f.counts[0], o), plus(f.counts[1], i)}
		}
	}
	f.path = nil
	f.mu.Unlock()
	if path != nil {
		_ = path.Close() // the kernel does it at the end of the process in any case
	}
	f.following.Wait()
}
