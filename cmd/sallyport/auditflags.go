package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sallyport/sallyport/audit/journal"
	"github.com/sallyport/sallyport/gateway/replica"
)

// auditFlags are a gateway's of the audit log.
type auditFlags struct {
	log, keep string
	keepFor   time.Duration
	starts    bool
	queue     int
}

// defaultAuditLog is where the chart has it, too.
const defaultAuditLog = "/var/lib/sallyport/audit/connections.jsonl"

func (a *auditFlags) register(f *pflag.FlagSet) {
	f.StringVar(&a.log, "audit-log", "",
		"file for the connections of routes that say audit: true, such as "+defaultAuditLog+", or - for the standard output; none without. Needs --replicate")
	f.StringVar(&a.keep, "audit-keep", "1Gi", "how much room that file and the full ones beside it have together, such as 500Mi; the oldest are removed")
	f.DurationVar(&a.keepFor, "audit-keep-for", 0, "remove full ones this long after their last line, such as 720h; 0: only for room")
	f.BoolVar(&a.starts, "audit-start", false, "write a line at the beginning of a connection, too: then open ones are found")
	f.IntVar(&a.queue, "audit-queue", 1<<16, "how many beginnings and ends may wait to be written; what comes beyond is looked up in the kernel later, or counted")
}

// config for the gateway; nil: it keeps none.
func (a *auditFlags) config(gateway string, replicate bool) (*replica.Audit, error) {
	if a.log == "" {
		return nil, nil
	}
	var errs []error
	keep, err := resource.ParseQuantity(a.keep)
	if err != nil {
		errs = append(errs, fmt.Errorf("--audit-keep %s: give a size such as 1Gi or 500M", a.keep))
	}
	c := &replica.Audit{
		Config: journal.Config{Path: a.log, Keep: keep.Value(), For: a.keepFor, Gateway: gateway}, Starts: a.starts, Queue: a.queue,
	}
	if err == nil {
		if err := c.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("--audit-log, --audit-keep, --audit-keep-for: %w", err))
		}
	}
	if a.queue < 1 {
		errs = append(errs, fmt.Errorf("--audit-queue %d: give 1 or more, normally 65536", a.queue))
	}
	if !replicate {
		errs = append(errs, errors.New("--audit-log needs --replicate: both follow the kernel's connections; a single gateway may replicate, too"))
	}
	return c, errors.Join(errs...)
}
