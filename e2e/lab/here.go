package lab

import (
	"net"
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/e2e/netns"
)

// HerePod is the only pod of Here.
const HerePod = "here"

// Here is a lab of one pod: where this process runs. The program of a real pod has
// the lab's clients by it.
func Here() *Lab {
	l := newLab(Options{})
	ns := netns.Own()
	l.hosts[HerePod] = &machine{NS: ns}
	l.pods[HerePod] = &Pod{PodSpec: PodSpec{Name: HerePod}, ns: ns}
	streams.Store(firstStream())
	return l
}

// firstStream keeps the streams of pods from one source port: each address has three,
// and the third byte tells nodes apart.
func firstStream() uint32 {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			ip := n.IP.To4()
			return uint32(ip[2])*1000 + uint32(ip[3])*3
		}
	}
	return 0
}

// Connect makes one TCP connection from a pod to the TCPPort of an address, and waits for
// the partner's greeting.
func (l *Lab) Connect(pod string, to netip.Addr) Exchange {
	e := Exchange{Sent: time.Now()}
	e.Source, e.Err = l.greeting(pod, to)
	if e.Err == nil {
		e.Answered = time.Now()
	}
	return e
}

func (l *Lab) greeting(pod string, to netip.Addr) (source netip.AddrPort, err error) {
	p, err := l.Pod(pod)
	if err != nil {
		return source, err
	}
	err = p.ns.Do(func() error {
		f, err := beginConnect(netip.AddrPortFrom(to, TCPPort))
		if err != nil {
			return err
		}
		defer f.Close()
		source, err = finishConnect(f)
		return err
	})
	return source, err
}
