package host

import "github.com/prometheus/client_golang/prometheus"

// Audit is what a gateway says of its record of connections.
type Audit struct {
	Lines     uint64 `json:"lines"`     // written
	Unwritten uint64 `json:"unwritten"` // lines that the disk did not take
	Missing   uint64 `json:"missing"`   // connections that there was no time for
	Gaps      uint64 `json:"gaps"`      // times that something was left out
	Error     string `json:"error,omitempty"`
}

var (
	descAuditLines = desc("audit_lines_total", "Lines of the audit log that were written.")
	descAuditLost  = desc("audit_lost_total", "Lines of the audit log that are missing: the disk did not take them, or connections came faster than they were written down.", "cause")
	descAuditGaps  = desc("audit_gaps_total", "Times that connections came faster than they were written down; what came of those that were left out was looked up in the kernel.")
)

func describeAudit(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAuditLines, descAuditLost, descAuditGaps} {
		ch <- d
	}
}

func collectAudit(a *Audit, total func(*prometheus.Desc, uint64, ...string)) {
	if a == nil {
		return
	}
	total(descAuditLines, a.Lines)
	total(descAuditLost, a.Unwritten, "disk")
	total(descAuditLost, a.Missing, "overload")
	total(descAuditGaps, a.Gaps)
}
