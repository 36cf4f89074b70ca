package host

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/snat"
)

// Ports of a VIP that are taken towards one destination, of the range of source ports in
// which the largest part is.
type Ports struct {
	Destination string `json:"destination"` // ADDRESS:PORT/PROTOCOL
	Used        int    `json:"used"`
	Usable      int    `json:"usable"`
}

// NewPorts is a count as a status has it.
func NewPorts(u snat.PortUse) *Ports {
	return &Ports{Destination: u.String(), Used: u.Used, Usable: u.Usable}
}

// PortUse is Ports and what will become of them.
type PortUse struct {
	Ports
	// GrowthPerSecond over the last minutes, negative where ports become free.
	GrowthPerSecond float64 `json:"growthPerSecond"`
	// ExhaustedInSeconds should it go on like this; nil: it will not come to that.
	ExhaustedInSeconds *float64 `json:"exhaustedInSeconds,omitempty"`
}

// NewPortUse is the forecast as a status has it.
func NewPortUse(f snat.Forecast) PortUse {
	u := PortUse{Ports: *NewPorts(f.PortUse), GrowthPerSecond: f.Growth}
	if f.Left != snat.Never {
		left := f.Left.Seconds()
		u.ExhaustedInSeconds = &left
	}
	return u
}

var (
	descConnections = desc("connections", "Translated connections in this kernel, counted every few seconds.", "vip")
	descPortsUsed   = desc("snat_ports_used", "Source ports of the VIP in use towards the destination, of the range that is fullest; of the fullest destinations, by the holder.", "vip", "destination")
	descPortsUsable = desc("snat_ports_usable", "Source ports that this range of the VIP has for each destination.", "vip", "destination")
	descPortsLeft   = desc("snat_ports_exhausted_in_seconds", "Time until none is free, at the growth of the last ten minutes; infinite without growth.", "vip", "destination")
)

func describePorts(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descConnections, descPortsUsed, descPortsUsable, descPortsLeft} {
		ch <- d
	}
}

// collectPorts of one VIP. A standby has the connections too, but not those of an instant.
func collectPorts(v VIP, gauge func(*prometheus.Desc, float64, ...string)) {
	vip := v.VIP.String()
	gauge(descConnections, float64(v.Connections), vip)
	if !v.Held {
		return
	}
	for _, u := range v.Ports {
		left := math.Inf(1)
		if u.ExhaustedInSeconds != nil {
			left = *u.ExhaustedInSeconds
		}
		gauge(descPortsUsed, float64(u.Used), vip, u.Destination)
		gauge(descPortsUsable, float64(u.Usable), vip, u.Destination)
		gauge(descPortsLeft, left, vip, u.Destination)
	}
}
