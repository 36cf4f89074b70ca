package host

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/election"
)

// Metrics are those that a status cannot give: they add up over time.
type Metrics struct {
	apply       prometheus.Histogram
	applyErrors prometheus.Counter
	replicated  *prometheus.HistogramVec // without labels; a gateway's that replicates
	margin      *prometheus.HistogramVec
}

// NewMetrics makes them.
func NewMetrics() *Metrics {
	return &Metrics{
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sallyport_apply_seconds",
			Help:    "Time to bring a change of the view into the kernel.",
			Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}),
		applyErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_apply_errors_total",
			Help: "Changes of the view that could not be brought into the kernel; each is retried.",
		}),
		replicated: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sallyport_replication_seconds",
			Help:    "Time from a change of a connection until a standby's kernel had it, of the oldest in each batch.",
			Buckets: []float64{.002, .004, .006, .008, .01, .015, .02, .03, .05, .1, .2, .5, 1, 2, 5},
		}, nil),
		margin: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sallyport_vip_lease_margin_ratio",
			Help:    "What was left of the holder's lease when it was renewed, of a whole one; 0 where it ran out.",
			Buckets: []float64{0, .05, .1, .2, .3, .4, .5, .6, .7, .8},
		}, []string{"vip"}),
	}
}

// Holds makes a VIP that was never renewed read zero rather than missing.
func (m *Metrics) Holds(vip string) { m.margin.WithLabelValues(vip) }

// Renewed records a lease of which so much was left; below zero: it had run out.
func (m *Metrics) Renewed(vip string, left, whole time.Duration) {
	m.margin.WithLabelValues(vip).Observe(max(0, left.Seconds()) / whole.Seconds())
}

// Applied records one run.
func (m *Metrics) Applied(took time.Duration, err error) {
	m.apply.Observe(took.Seconds())
	if err != nil {
		m.applyErrors.Inc()
	}
}

// Replicates makes a replication that had nothing to do yet read zero rather than
// missing, and gives what records how long a batch took.
func (m *Metrics) Replicates() func(lag time.Duration) {
	h := m.replicated.WithLabelValues()
	return func(lag time.Duration) { h.Observe(lag.Seconds()) }
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.apply.Describe(ch)
	m.applyErrors.Describe(ch)
	m.replicated.Describe(ch)
	m.margin.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.apply.Collect(ch)
	m.applyErrors.Collect(ch)
	m.replicated.Collect(ch)
	m.margin.Collect(ch)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sallyport_"+name, help, labels, nil)
}

var (
	descInfo        = desc("build_info", "Always 1.", "program", "version", "node", "netfilter", "priority")
	descPriority    = desc("priority_raised", "1 while the gateway is scheduled before other programs as it is to be, 0 where that was refused.")
	descLive        = desc("view_live", "1 when the view is the source's, 0 while it is the one saved by an earlier run.")
	descAge         = desc("view_age_seconds", "For how long the source has not given a view that is whole: next to nothing while it does.")
	descWithout     = desc("vip_without_holder_seconds_total", "Time in which this replica knew of no holder.", "vip")
	descFailover    = desc("vip_last_failover_seconds", "Duration of the last failover that this replica saw, from the last sign of life of one holder to the first of the next, by why the one held no more.", "vip", "reason")
	descFailoverAt  = desc("vip_last_failover_timestamp_seconds", "When that was, in Unix time.", "vip")
	descDuplicates  = desc("vip_duplicate_owners_total", "Times that another host was seen to claim the VIP while this replica held it.", "vip")
	descPods        = desc("selected_pods", "Selected pods with an address.")
	descHolder      = desc("vip_holder", "1 for the holder of the VIP as this replica knows it.", "vip", "holder")
	descHeld        = desc("vip_held", "1 while this replica holds the VIP.", "vip")
	descTerm        = desc("vip_term", "Election term of the VIP.", "vip")
	descTransitions = desc("vip_transitions_total", "Changes of holder that this replica saw.", "vip", "reason")
	descLease       = desc("vip_lease_left_seconds", "What is left of this replica's own lease.", "vip")
	descRTT         = desc("heartbeat_round_trip_seconds", "Time from a heartbeat to the acknowledgement that made a quorum.", "vip")
	descReplicas    = desc("vip_replicas", "Gateways that there are meant to be.", "vip")
	descVoters      = desc("vip_voters", "Voters heard within the last lease, this replica included.", "vip")
	descPackets     = desc("route_packets_total", "Packets of the route on this replica, both directions.", "route", "vip")
	descBytes       = desc("route_bytes_total", "Bytes of the route on this replica, both directions.", "route", "vip")
	descDropped     = desc("dropped_packets_total", "Packets dropped on this host, by reason.", "reason")
	descKeptOut     = desc("exclusive_dropped_packets_total", "Packets dropped on this node because only an exclusive route's own pods may send them, by the namespace of the pod that did; of the namespaces with the most pods on the node.", "namespace")
	descProblems    = desc("problems", "Present problems, by reason; GET /status names them.", "reason")
)

// statusCollector turns a Status into metrics at each scrape.
type statusCollector struct{ program Program }

func (c statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descInfo, descPriority, descLive, descAge, descWithout, descFailover, descFailoverAt, descDuplicates, descPods, descHolder, descHeld, descTerm, descTransitions,
		descLease, descRTT, descReplicas, descVoters, descPackets, descBytes, descDropped, descKeptOut, descProblems} {
		ch <- d
	}
	describePorts(ch)
	describeReplication(ch)
	describeSYNRetry(ch)
	describeFastPath(ch)
	describeAudit(ch)
}

func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.program.Status(context.Background())
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	total := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descInfo, 1, s.Program, s.Version, s.Node, s.Netfilter, s.Priority)
	if s.Priority != "" {
		gauge(descPriority, flag(!s.PriorityRefused))
	}
	gauge(descLive, flag(s.Live))
	if s.ViewAgeSeconds != nil {
		gauge(descAge, *s.ViewAgeSeconds)
	}
	gauge(descPods, float64(len(s.Pods)))
	if s.Program == "gateway" {
		for _, v := range s.VIPs {
			vip := v.VIP.String()
			if v.Holder != "" {
				gauge(descHolder, 1, vip, v.Holder)
			}
			gauge(descHeld, flag(v.Held), vip)
			gauge(descTerm, float64(v.Term), vip)
			gauge(descLease, v.LeaseSeconds, vip)
			gauge(descRTT, v.HeartbeatSeconds, vip)
			gauge(descReplicas, float64(v.Replicas), vip)
			gauge(descVoters, float64(len(v.Voters)), vip)
			collectPorts(v, gauge)
			ch <- prometheus.MustNewConstMetric(descWithout, prometheus.CounterValue, v.WithoutHolderSeconds, vip)
			total(descDuplicates, v.DuplicateOwners, vip)
			if f := v.Failover; f != nil {
				gauge(descFailover, f.Seconds, vip, f.Reason)
				gauge(descFailoverAt, float64(f.At.UnixMilli())/1000, vip)
			}
			// A counter that begins at one shows no increase.
			for _, reason := range election.Reasons() {
				if v.Transitions[reason] == 0 {
					total(descTransitions, 0, vip, reason)
				}
			}
			for reason, n := range v.Transitions {
				total(descTransitions, n, vip, reason)
			}
		}
		collectReplication(s.VIPs, gauge, total)
		collectAudit(s.Audit, total)
		for _, r := range s.Routes {
			total(descPackets, r.Sent.Packets, r.Name, r.VIP.String())
			total(descBytes, r.Sent.Bytes, r.Name, r.VIP.String())
		}
	}
	if s.Program == "agent" {
		collectSYNRetry(s.SYNRetry, gauge, total)
	}
	collectFastPath(s.FastPath, gauge, total)
	for reason, n := range s.Dropped {
		total(descDropped, n.Packets, reason)
	}
	for namespace, n := range s.KeptOut {
		total(descKeptOut, n.Packets, namespace)
	}
	problems := map[string]int{}
	for _, p := range s.Problems {
		problems[string(p.Reason)]++
	}
	for reason, n := range problems {
		gauge(descProblems, float64(n), reason)
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
