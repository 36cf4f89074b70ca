package replica

import (
	"context"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/gateway/host"
)

// Doctor implements host.Program.
func (r *Replica) Doctor(ctx context.Context) doctor.Host {
	return host.Examined(ctx, r.clash, r.Status)
}
