package node

import (
	"context"
	"net"

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
	device, err := net.InterfaceByName(a.cfg.Tunnel.Device)
	if err != nil {
		return out // that it is missing is among the errors of applying
	}
	size := device.MTU + tunnel.Overhead
	for _, e := range want.ends {
		p := doctor.Path{To: e.Inside, Device: device.Name, Size: size}
		if p.Largest, err = ping.Largest(ctx, e.Inside, size, min(size, 1450), min(size, 1400), min(size, 1280), 576); err != nil {
			p.Error = err.Error()
		}
		out.Paths = append(out.Paths, p)
	}
	return out
}
