package chaos

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// How often the clients ask: enough to see what breaks, and little work.
const (
	echoEvery    = 20 * time.Millisecond
	askEvery     = 20 * time.Millisecond
	connectEvery = 100 * time.Millisecond
)

// The first VIP is for TCP, the second for UDP, so that each has its own holder.
var (
	tcpVIP = netip.MustParseAddr("192.0.2.10")
	udpVIP = netip.MustParseAddr("192.0.2.11")
)

func selected(j int) string   { return fmt.Sprintf("pod-%d-1", j) }
func unselected(j int) string { return fmt.Sprintf("pod-%d-2", j) }

// talker is the traffic of a node's two pods.
type talker struct {
	node     int
	nodeIP   netip.Addr
	ask      *lab.Stream // a request and its answer
	listen   *lab.Stream // the partner talks
	echo     *lab.Echo   // UDP from one port
	ping     *lab.Ping   // of one identifier
	connects *lab.Connects
	plain    *lab.Echo // of the pod that is not selected

	echoSource netip.AddrPort // what the partner sees it as, from its first answer on
}

// reporter is any client.
type reporter interface {
	Since(from time.Time) lab.Timeline
}

func (t *talker) clients() map[string]reporter {
	return map[string]reporter{
		"requests on an open connection": t.ask, "what the partner sends on an open connection": t.listen,
		"UDP": t.echo, "pings": t.ping, "new connections": t.connects, "the pod that is not selected": t.plain,
	}
}

// talk starts the traffic of node j. The generation gives its source ports and the pings'
// identifier: the same ones on all nodes, so that all but one are translated to others, and
// only who has the connections knows to which.
func talk(l *lab.Lab, j, generation int) (_ *talker, err error) {
	t := &talker{node: j, nodeIP: l.NodeIP(j)}
	defer func() {
		if err != nil {
			t.hangUp()
		}
	}()
	port := 21000 + 3*(generation%2000)
	if t.ask, err = l.StartStreamFrom(selected(j), port, lab.PartnerAddr, askEvery); err != nil {
		return nil, err
	}
	if t.listen, err = l.StartListeningFrom(selected(j), port+1, lab.PartnerAddr); err != nil {
		return nil, err
	}
	if t.echo, err = l.StartEchoFrom(selected(j), port+2, lab.PartnerAddr, echoEvery); err != nil {
		return nil, err
	}
	if t.ping, err = l.StartPing(selected(j), uint16(port), lab.PartnerAddr, echoEvery); err != nil {
		return nil, err
	}
	if t.connects, err = l.StartConnects(selected(j), lab.PartnerAddr, connectEvery); err != nil {
		return nil, err
	}
	t.plain, err = l.StartEcho(unselected(j), lab.PublicAddr, echoEvery)
	return t, err
}

func (t *talker) hangUp() {
	if t.ask != nil {
		t.ask.Stop()
	}
	if t.listen != nil {
		t.listen.Stop()
	}
	if t.echo != nil {
		t.echo.Stop()
	}
	if t.ping != nil {
		t.ping.Stop()
	}
	if t.connects != nil {
		t.connects.Stop()
	}
	if t.plain != nil {
		t.plain.Stop()
	}
}

// back says what has had no answer to anything asked since the moment.
func (t *talker) back(since time.Time) error {
	for what, c := range t.clients() {
		if _, ok := c.Since(since).NextReply(since); !ok {
			return fmt.Errorf("no answer from the partner to %s of n%d", what, t.node)
		}
	}
	return nil
}

// kept says which of what was established is lost: a connection that broke, a UDP flow
// that the partner sees as another one.
func (t *talker) kept(since time.Time) error {
	var errs []error
	for what, s := range map[string]*lab.Stream{"that asks": t.ask, "that listens": t.listen} {
		if err := s.Broken(); err != nil {
			errs = append(errs, fmt.Errorf("the connection of n%d %s (%s, seen as %s) broke: %w", t.node, what, s.Local(), s.Source(), err))
		}
	}
	if t.known() != nil {
		return errors.Join(errs...)
	}
	for _, e := range t.echo.Since(since).Exchanges {
		if !e.Answered.IsZero() && e.Source != t.echoSource {
			errs = append(errs, fmt.Errorf("the UDP flow of n%d (%s), seen as %s before, was seen as %s at %s",
				t.node, t.echo.Local(), t.echoSource, e.Source, clock(e.Sent)))
			t.echoSource = e.Source
		}
	}
	return errors.Join(errs...)
}

// known notes what the partner saw the UDP flow as first.
func (t *talker) known() error {
	if t.echoSource.IsValid() {
		return nil
	}
	for _, e := range t.echo.Since(time.Time{}).Exchanges {
		if !e.Answered.IsZero() {
			t.echoSource = e.Source
			return nil
		}
	}
	return fmt.Errorf("no answer from the partner to UDP of n%d", t.node)
}

// rightSources says what the partner saw from another address than promised.
func (t *talker) rightSources(since time.Time) error {
	var errs []error
	want := map[reporter]netip.Addr{t.echo: udpVIP, t.connects: tcpVIP, t.ask: tcpVIP, t.listen: tcpVIP, t.plain: t.nodeIP}
	for what, c := range t.clients() {
		for source, n := range c.Since(since).Sources() {
			if source != want[c] {
				errs = append(errs, fmt.Errorf("%s of n%d was seen from %s, %d times, not from %s", what, t.node, source, n, want[c]))
			}
		}
	}
	return errors.Join(errs...)
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }
