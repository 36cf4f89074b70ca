// Package traffic is what the pods of a cluster's tests send to the partner, and how
// they tell what became of it. Its clients are the lab's.
package traffic

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Port on which a pod tells its report, GET /report?since=RFC3339.
const Port = 8080

// Client is the traffic of one pod.
type Client struct {
	// Pod is its name.
	Pod string
	// First is the connection that was the pod's first act.
	First lab.Exchange

	echo     *lab.Echo
	connects *lab.Connects
	stream   *lab.Stream
}

// Report is what the traffic of a pod lived through.
type Report struct {
	Pod                    string // whose it is: an address changes hands
	First                  lab.Exchange
	Echo, Connects, Stream lab.Timeline
	// Broken is why the stream ended, "" if it did not.
	Broken string
}

// Start starts the kinds of traffic that have a pace.
func (c *Client) Start(from *lab.Lab, to netip.Addr, echo, connects, stream time.Duration) (err error) {
	if echo > 0 {
		if c.echo, err = from.StartEcho(lab.HerePod, to, echo); err != nil {
			return err
		}
	}
	if connects > 0 {
		if c.connects, err = from.StartConnects(lab.HerePod, to, connects); err != nil {
			return err
		}
	}
	if stream == 0 {
		return nil
	}
	if c.stream, err = from.StartStream(lab.HerePod, to, stream); err != nil {
		return err
	}
	return c.stream.KeepAlive(time.Second)
}

// Report is what was asked from a moment on.
func (c *Client) Report(since time.Time) Report {
	r := Report{Pod: c.Pod, First: c.First}
	if c.echo != nil {
		r.Echo = c.echo.Since(since)
	}
	if c.connects != nil {
		r.Connects = c.connects.Since(since)
	}
	if c.stream != nil {
		r.Stream = c.stream.Since(since)
		if err := c.stream.Broken(); err != nil {
			r.Broken = err.Error()
		}
	}
	return r
}

// Sources says how many answered questions the partner saw from each address.
func (r Report) Sources() map[netip.Addr]int {
	sources := map[netip.Addr]int{}
	for _, t := range []lab.Timeline{r.Echo, r.Connects, r.Stream, {Exchanges: []lab.Exchange{r.First}}} {
		for a, n := range t.Sources() {
			sources[a] += n
		}
	}
	return sources
}
