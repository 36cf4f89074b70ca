package node

import (
	"context"
	"net"
	"net/netip"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/doctor/ping"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/tunnel"
)

// Doctor implements host.Program. The way to each VIP is probed.
func (a *Agent) Doctor(ctx context.Context) doctor.Host {
	out := host.Examined(ctx, a.clash, a.filter, a.Status)
	a.mu.Lock()
	want := a.wanted
	a.mu.Unlock()
	if want == nil {
		return out
	}
	for _, e := range want.ends {
		if p, ok := a.path(ctx, e.Inside); ok {
			out.Paths = append(out.Paths, p)
		}
	}
	return out
}

// path probes the way of the tunnel's packets to its other end. That there is no tunnel is
// told by others.
func (a *Agent) path(ctx context.Context, to netip.Addr) (p doctor.Path, ok bool) {
	device, err := net.InterfaceByName(a.cfg.Tunnel.Device)
	if err != nil {
		return p, false
	}
	size := device.MTU + tunnel.Overhead
	p = doctor.Path{To: to, Device: device.Name, Size: size}
	if p.Largest, err = ping.Largest(ctx, to, size, min(size, 1450), min(size, 1400), min(size, 1280), 576); err != nil {
		p.Error = err.Error()
	}
	return p, true
}
