package node

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/steer"
	"github.com/sallyport/sallyport/steer/sockops"
)

// SYNRetry lets connections that are begun while a VIP moves try again soon. It ends
// with the agent: a connection then waits as long as it did before there was one.
type SYNRetry struct {
	After  time.Duration // 0: off
	CGroup string        // where the node's cgroup v2 is mounted
}

func (c SYNRetry) check() error {
	if c.After == 0 {
		return nil
	}
	return sockops.Check(c.After)
}

// retry does it. Nothing else depends on it: what it cannot do is a problem, and that
// is all.
type retry struct {
	SYNRetry
	node string
	log  *slog.Logger

	program *sockops.Program // nil: off, or not possible here

	mu     sync.Mutex
	failed error // why it is not possible, or what the last view came to
}

func (r *retry) attach() {
	if r.After == 0 {
		return
	}
	program, err := sockops.Attach(r.CGroup, r.After)
	if err != nil {
		r.note(err)
		return
	}
	r.program = program
	r.log.Info("connections of routes try again sooner", "after", r.After.String())
}

func (r *retry) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && (r.failed == nil || r.failed.Error() != err.Error()) {
		r.log.Warn("connections begun while a VIP moves wait a second", "error", err)
	}
	r.failed = err
}

func (r *retry) apply(plan gateway.Plan) {
	if r.program != nil {
		r.note(r.program.Apply(steer.NewRetries(plan)))
	}
}

func (r *retry) describe(s *host.Status) {
	problem := func(format string, args ...any) {
		s.Problems = append(s.Problems, gateway.Problem{
			Object: "Node " + r.node, Field: "--syn-retry", Reason: gateway.Misconfigured, Message: fmt.Sprintf(format, args...),
		})
	}
	r.mu.Lock()
	failed := r.failed
	r.mu.Unlock()
	if failed != nil {
		problem("%s; until then, or without --syn-retry, a connection that is begun while a VIP moves waits a second", failed)
	}
	if r.program == nil {
		return
	}
	counts, err := r.program.Counts()
	switch {
	case err != nil:
		problem("%s", err)
	case counts.Refused > 0:
		problem("this kernel does not let BPF programs raise a connection's retries, so %d connections were left as they are: it needs to be Linux 6.1 or later", counts.Refused)
	}
	s.SYNRetry = &host.SYNRetry{AfterSeconds: r.After.Seconds(), Connections: counts.Sooner}
}

func (r *retry) close() {
	if r.program != nil {
		_ = r.program.Close() // the kernel does it at the end of the process in any case
	}
}
