package replica

import (
	"context"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/gateway/host"
)

// Doctor implements host.Program.
func (r *Replica) Doctor(ctx context.Context) doctor.Host {
	out := host.Examined(ctx, r.clash, r.filter, r.Status)
	out.Audits, out.Unraised = r.audits(), !r.raised
	return out
}

// audits are the routes whose connections are recorded here.
func (r *Replica) audits() (names []string) {
	if r.cfg.Audit == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, route := range r.plan.Routes {
		if route.Audit {
			names = append(names, route.Name)
		}
	}
	return names
}
