package host

import "github.com/prometheus/client_golang/prometheus"

// SYNRetry is how soon a connection of a route sends its SYN again.
type SYNRetry struct {
	AfterSeconds float64 `json:"afterSeconds"`
	Connections  uint64  `json:"connections"` // begun under it
}

var (
	descSYNRetry    = desc("syn_retry_seconds", "After how long a connection of a route sends its SYN again, while this agent sees to it; 0: the kernel's second.")
	descRetriedSYNs = desc("syn_retry_connections_total", "Connections of routes that were begun under it.")
)

func describeSYNRetry(ch chan<- *prometheus.Desc) {
	ch <- descSYNRetry
	ch <- descRetriedSYNs
}

func collectSYNRetry(s *SYNRetry, gauge func(*prometheus.Desc, float64, ...string), total func(*prometheus.Desc, uint64, ...string)) {
	if s == nil {
		s = new(SYNRetry)
	}
	gauge(descSYNRetry, s.AfterSeconds)
	total(descRetriedSYNs, s.Connections)
}
