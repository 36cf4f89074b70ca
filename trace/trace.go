// Package trace walks the path of one packet, from its pod to the partner and back,
// over what agents and gateways found in their kernels, and says of each decision what
// was found, and of the first that is wrong what cures it. It is pure.
package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/gateway"
)

// Question is which packet is meant.
type Question struct {
	Namespace string         `json:"namespace"`
	Pod       string         `json:"pod"`
	Packet    gateway.Packet `json:"-"`
}

// Destination reads "203.0.113.9:443" or, for another protocol than TCP, "203.0.113.9:53/udp".
func Destination(text string) (gateway.Packet, error) {
	at, name, named := strings.Cut(text, "/")
	protocol, known := map[string]gateway.Protocol{"tcp": gateway.TCP, "udp": gateway.UDP, "sctp": gateway.SCTP}[name]
	if !named {
		protocol, known = gateway.TCP, true
	}
	to, err := netip.ParseAddrPort(at)
	switch {
	case err != nil || !known || to.Port() == 0:
		return gateway.Packet{}, fmt.Errorf("destination %s: give ADDRESS:PORT, or ADDRESS:PORT/udp", text)
	case !to.Addr().Is4():
		return gateway.Packet{}, fmt.Errorf("destination %s: IPv6 is not there yet, give an IPv4 address", text)
	}
	return gateway.Packet{Dst: to.Addr(), Protocol: protocol, Port: to.Port()}, nil
}

// PodName reads "POD" or "POD.NAMESPACE": a pod's name may have dots, a namespace's not.
func PodName(text, namespace string) (q Question, err error) {
	q = Question{Namespace: namespace, Pod: text}
	if i := strings.LastIndexByte(text, '.'); i >= 0 {
		q.Pod, q.Namespace = text[:i], text[i+1:]
	}
	if q.Pod == "" || q.Namespace == "" {
		return q, fmt.Errorf("pod %q: give POD.NAMESPACE", text)
	}
	return q, nil
}

// Verdict of a Step.
type Verdict string

// Verdicts.
const (
	OK      Verdict = "ok"
	Wrong   Verdict = "wrong"
	Unknown Verdict = "unknown" // it could not be asked
	Note    Verdict = "note"    // worth knowing, not wrong
)

// Steps are the names of all there are, in the order of the path.
var Steps = []string{
	"pod", "agent", "agent's view", "selection", "access", "destination", "sets", "rules", "ip rule", "tunnel", "table", "route", "kernel",
	"gateway", "holder", "mtu", "admission", "gateway's rules", "SNAT", "address", "way out", "reply rule", "gateway's tunnel", "reply route", "reply",
	"connections", "probe",
}

// Step is one decision of the path.
type Step struct {
	Name     string  `json:"name"`
	Where    string  `json:"where,omitempty"` // the node, or the API
	Verdict  Verdict `json:"verdict"`
	Found    string  `json:"found"`
	Expected string  `json:"expected,omitempty"`
	Cure     string  `json:"cure,omitempty"`
}

// Report is the answer.
type Report struct {
	Pod         string `json:"pod"` // namespace/name
	Destination string `json:"destination"`
	Steps       []Step `json:"steps"`
	// First is the first step that is wrong, by its number from 1; 0: none is.
	First int `json:"first"`
	// Asked is false where a step could not be asked.
	Asked bool `json:"asked"`
}

func reportOf(q Question, steps []Step) Report {
	r := Report{Pod: q.Namespace + "/" + q.Pod, Destination: q.Packet.String(), Steps: steps, Asked: true}
	for i, s := range steps {
		if s.Verdict == Wrong && r.First == 0 {
			r.First = i + 1
		}
		r.Asked = r.Asked && s.Verdict != Unknown
	}
	return r
}
