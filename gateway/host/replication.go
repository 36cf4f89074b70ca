package host

import "github.com/prometheus/client_golang/prometheus"

// Replication of one VIP's connections, as one gateway sees it.
type Replication struct {
	InStep    bool      `json:"inStep"` // a standby's: it has what the holder has
	Standbys  []Standby `json:"standbys,omitempty"`
	Bytes     uint64    `json:"bytes"`     // sent and received
	Snapshots uint64    `json:"snapshots"` // sent
	Refused   uint64    `json:"refused"`   // by this kernel, being full
	Overruns  uint64    `json:"overruns"`  // events of this kernel that came too fast
}

// Standby that follows a holder.
type Standby struct {
	Name       string  `json:"name"`
	InStep     bool    `json:"inStep"` // it has all but what it lags by
	LagSeconds float64 `json:"lagSeconds"`
}

var (
	descInStep    = desc("replication_in_step", "1 while the standby has all that the holder, which says this, has, but for what it lags by.", "vip", "standby")
	descLag       = desc("replication_lag_seconds", "For how long the oldest change waits that the standby has not taken over.", "vip", "standby")
	descCopied    = desc("replication_bytes_total", "Bytes of replicated connections, sent and received.", "vip")
	descSnapshots = desc("replication_snapshots_total", "Snapshots sent to standbys that were new or lagged.", "vip")
	descRefused   = desc("replication_refused_total", "Replicated connections that this kernel did not take.", "vip")
	descOverruns  = desc("replication_overruns_total", "Times that this kernel had more to tell than was read; each costs a snapshot.")
)

func describeReplication(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descInStep, descLag, descCopied, descSnapshots, descRefused, descOverruns} {
		ch <- d
	}
}

// collect the metrics of all VIPs.
func collectReplication(vips []VIP, gauge func(*prometheus.Desc, float64, ...string), total func(*prometheus.Desc, uint64, ...string)) {
	for i, v := range vips {
		r, vip := v.Replication, v.VIP.String()
		if r == nil {
			continue
		}
		if i == 0 {
			total(descOverruns, r.Overruns)
		}
		for _, s := range r.Standbys {
			gauge(descInStep, flag(s.InStep), vip, s.Name)
			gauge(descLag, s.LagSeconds, vip, s.Name)
		}
		total(descCopied, r.Bytes, vip)
		total(descSnapshots, r.Snapshots, vip)
		total(descRefused, r.Refused, vip)
	}
}
