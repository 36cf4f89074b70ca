package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Event that a Record is of.
type Event string

// Events.
const (
	StartEvent  Event = "start"  // of a connection
	EndEvent    Event = "end"    // of a connection
	HolderEvent Event = "holder" // of a VIP is known to this gateway from here on
	LostEvent   Event = "lost"   // records are missing
)

// Reason of a connection's end.
type Reason string

// Reasons.
const (
	Finished   Reason = "fin"        // both sides ended it
	Reset      Reason = "reset"      // one side broke it off
	Timeout    Reason = "timeout"    // no packet for as long as the kernel waits
	PodGone    Reason = "pod_gone"   // its pod was deleted
	RouteGone  Reason = "route_gone" // its route was deleted
	Moved      Reason = "moved"      // another gateway holds the VIP: what follows is on record there
	Removed    Reason = "removed"    // by hand, or by a kernel whose table was full
	Stopped    Reason = "stopped"    // this gateway has, and no other took the VIP: it may go on
	Unobserved Reason = "unobserved" // it has ended by then; events were lost
)

// Record is one line.
type Record struct {
	Time    time.Time // of what happened
	Event   Event
	Gateway string // that wrote it

	Route           string
	Pod             Pod // zero where nobody knew
	Source          netip.Addr
	SourcePort      uint16
	VIP             netip.Addr
	Port            uint16 // of the VIP; of ICMP the id of the echo
	Destination     netip.Addr
	DestinationPort uint16
	Protocol        string
	Start           time.Time // zero: before this gateway knew of it
	Answered        bool      // by the partner
	TakenOver       bool      // counted is what passed since this gateway holds the VIP
	Counted         bool      // Sent and Received are known
	Sent, Received  Traffic
	Reason          Reason

	Holder string // of a HolderEvent
	// Lost is how many lines are missing, of a LostEvent, and Cause why; nil: not known,
	// and few if any.
	Lost  *uint64
	Cause string
}

// ProtocolName is how records spell a protocol.
func ProtocolName(number uint8) string {
	if name := protocols[number]; name != "" {
		return name
	}
	return strconv.Itoa(int(number))
}

// Append the record as one line of JSON. Connections come by the ten thousand in a
// second, and encoding/json would be the most of what one costs.
func (r *Record) Append(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = appendTime(b, r.Time)
	b = append(b, `","event":"`...)
	b = append(b, r.Event...)
	b = append(b, '"')
	b = appendText(b, "gateway", r.Gateway)
	switch r.Event {
	case HolderEvent:
		b = appendAddr(b, "vip", r.VIP)
		b = appendText(b, "holder", r.Holder)
		return append(b, "}\n"...)
	case LostEvent:
		b = append(b, `,"lost":`...)
		if r.Lost == nil {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendUint(b, *r.Lost, 10)
		}
		b = appendText(b, "cause", r.Cause)
		return append(b, "}\n"...)
	}
	b = appendText(b, "route", r.Route)
	b = appendText(b, "namespace", r.Pod.Namespace)
	b = appendText(b, "pod", r.Pod.Name)
	b = appendText(b, "uid", r.Pod.UID)
	b = appendText(b, "node", r.Pod.Node)
	b = appendAddr(b, "source", r.Source)
	b = appendNumber(b, "sourcePort", uint64(r.SourcePort))
	b = appendAddr(b, "vip", r.VIP)
	b = appendNumber(b, "port", uint64(r.Port))
	b = appendAddr(b, "destination", r.Destination)
	if r.DestinationPort != 0 {
		b = appendNumber(b, "destinationPort", uint64(r.DestinationPort))
	}
	b = appendText(b, "protocol", r.Protocol)
	if r.Start.IsZero() {
		b = append(b, `,"start":null`...)
	} else {
		b = append(b, `,"start":"`...)
		b = append(appendTime(b, r.Start), '"')
	}
	if r.Event == StartEvent {
		return append(b, "}\n"...)
	}
	if r.Start.IsZero() {
		b = append(b, `,"seconds":null`...)
	} else {
		took := max(0, r.Time.Sub(r.Start).Milliseconds())
		b = appendNumber(b, "seconds", uint64(took/1000))
		b = appendThousandths(b, took%1000)
	}
	if r.Counted {
		b = appendNumber(b, "bytesSent", r.Sent.Bytes)
		b = appendNumber(b, "bytesReceived", r.Received.Bytes)
		b = appendNumber(b, "packetsSent", r.Sent.Packets)
		b = appendNumber(b, "packetsReceived", r.Received.Packets)
	} else {
		b = append(b, `,"bytesSent":null,"bytesReceived":null,"packetsSent":null,"packetsReceived":null`...)
	}
	if r.TakenOver {
		b = append(b, `,"takenOver":true`...)
	}
	b = append(b, `,"answered":`...)
	b = strconv.AppendBool(b, r.Answered)
	b = append(append(append(b, `,"reason":"`...), r.Reason...), "\"}\n"...)
	return b
}

// appendTime to the millisecond, in UTC.
func appendTime(b []byte, t time.Time) []byte {
	// RFC3339 is formatted faster than any layout of one's own.
	b = t.UTC().AppendFormat(b, time.RFC3339)
	b = appendThousandths(b[:len(b)-len("Z")], int64(t.Nanosecond()/1e6))
	return append(b, 'Z')
}

func appendThousandths(b []byte, n int64) []byte {
	return append(b, '.', byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
}

func appendText(b []byte, name, text string) []byte {
	b = append(append(append(b, `,"`...), name...), `":`...)
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(text) // of a string it always succeeds
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

func appendAddr(b []byte, name string, a netip.Addr) []byte {
	b = append(append(append(b, `,"`...), name...), `":"`...)
	return append(a.AppendTo(b), '"')
}

func appendNumber(b []byte, name string, n uint64) []byte {
	b = append(append(append(b, `,"`...), name...), `":`...)
	return strconv.AppendUint(b, n, 10)
}

// line is a Record as it is read.
type line struct {
	Time            time.Time  `json:"time"`
	Event           Event      `json:"event"`
	Gateway         string     `json:"gateway"`
	Route           string     `json:"route"`
	Namespace       string     `json:"namespace"`
	Pod             string     `json:"pod"`
	UID             string     `json:"uid"`
	Node            string     `json:"node"`
	Source          netip.Addr `json:"source"`
	SourcePort      uint16     `json:"sourcePort"`
	VIP             netip.Addr `json:"vip"`
	Port            uint16     `json:"port"`
	Destination     netip.Addr `json:"destination"`
	DestinationPort uint16     `json:"destinationPort"`
	Protocol        string     `json:"protocol"`
	Start           *time.Time `json:"start"`
	BytesSent       *uint64    `json:"bytesSent"`
	BytesReceived   *uint64    `json:"bytesReceived"`
	PacketsSent     *uint64    `json:"packetsSent"`
	PacketsReceived *uint64    `json:"packetsReceived"`
	TakenOver       bool       `json:"takenOver"`
	Answered        bool       `json:"answered"`
	Reason          Reason     `json:"reason"`
	Holder          string     `json:"holder"`
	Lost            *uint64    `json:"lost"`
	Cause           string     `json:"cause"`
}

// Parse reads a line. Fields that it does not know are a later version's, and passed over.
func Parse(text []byte) (Record, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return Record{}, fmt.Errorf("read an audit record: %w", err)
	}
	switch l.Event {
	case StartEvent, EndEvent, HolderEvent, LostEvent:
	default:
		return Record{}, fmt.Errorf("read an audit record: event %q is none of start, end, holder and lost", l.Event)
	}
	if l.Time.IsZero() {
		return Record{}, errors.New("read an audit record: it has no time")
	}
	r := Record{
		Time: l.Time.UTC(), Event: l.Event, Gateway: l.Gateway, Route: l.Route,
		Pod:    Pod{Namespace: l.Namespace, Name: l.Pod, UID: l.UID, Node: l.Node},
		Source: l.Source, SourcePort: l.SourcePort, VIP: l.VIP, Port: l.Port, Destination: l.Destination, DestinationPort: l.DestinationPort,
		Protocol: l.Protocol, Answered: l.Answered, TakenOver: l.TakenOver, Reason: l.Reason, Holder: l.Holder, Lost: l.Lost, Cause: l.Cause,
	}
	if l.Start != nil {
		r.Start = l.Start.UTC()
	}
	if l.BytesSent != nil && l.BytesReceived != nil && l.PacketsSent != nil && l.PacketsReceived != nil {
		r.Counted = true
		r.Sent = Traffic{Packets: *l.PacketsSent, Bytes: *l.BytesSent}
		r.Received = Traffic{Packets: *l.PacketsReceived, Bytes: *l.BytesReceived}
	}
	return r, nil
}
