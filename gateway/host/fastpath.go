package host

import "github.com/prometheus/client_golang/prometheus"

// FastPath is what went beside netfilter on this node since the program started. The node's
// connection tracking does not see it, nor do an agent's own counters; a gateway adds it to its routes'.
type FastPath struct {
	On         bool   `json:"on"`
	Flows      int    `json:"flows"`      // that go beside netfilter now
	PacketsOut uint64 `json:"packetsOut"` // of pods
	BytesOut   uint64 `json:"bytesOut"`
	PacketsIn  uint64 `json:"packetsIn"`
	BytesIn    uint64 `json:"bytesIn"`
}

var (
	descFastPath    = desc("fast_path", "Whether established connections go beside netfilter on this node.")
	descFastFlows   = desc("fast_path_flows", "Connections that go beside netfilter on this node now.")
	descFastPackets = desc("fast_path_packets_total", "Packets that went beside netfilter on this node, out of pods or into them.", "direction")
	descFastBytes   = desc("fast_path_bytes_total", "Bytes of those packets.", "direction")
)

func describeFastPath(ch chan<- *prometheus.Desc) {
	ch <- descFastPath
	ch <- descFastFlows
	ch <- descFastPackets
	ch <- descFastBytes
}

func collectFastPath(f *FastPath, gauge func(*prometheus.Desc, float64, ...string), total func(*prometheus.Desc, uint64, ...string)) {
	if f == nil {
		f = new(FastPath)
	}
	on := 0.0
	if f.On {
		on = 1
	}
	gauge(descFastPath, on)
	gauge(descFastFlows, float64(f.Flows))
	total(descFastPackets, f.PacketsOut, "out")
	total(descFastPackets, f.PacketsIn, "in")
	total(descFastBytes, f.BytesOut, "out")
	total(descFastBytes, f.BytesIn, "in")
}
