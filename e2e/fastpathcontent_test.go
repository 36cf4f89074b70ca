package e2e

import (
	"bufio"
	"bytes"
	be "encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Bulk in both directions and datagrams of one and of several packets arrive byte for byte, while the VIP is handed
// over, while its holder dies, and when a gateway that was killed is back.
func TestWhatGoesBesideNetfilterArrivesAsItWas(t *testing.T) {
	for _, c := range []struct {
		netfilter string
		two       bool
	}{{"nftables", true}, {"iptables", false}} {
		t.Run(fmt.Sprintf("%s, two networks %t", c.netfilter, c.two), func(t *testing.T) {
			t.Parallel() // with each other, and nobody else
			w := start(t, lab.Options{Netfilter: c.netfilter, TwoNetworks: c.two, AgentArgs: fastPath, GatewayArgs: slices.Concat(unhurried, fastPath)})
			holder := w.holder()
			from := w.Others(holder)[0]
			w.seenEventually(selected(from), partner, theVIP)
			stream, large := w.startContent(selected(from)), w.startLarge(selected(from))
			goOn := func(through int) {
				w.t.Helper()
				if from != through { // a pod of the holder's node has no tunnel packets there
					w.passesBeside(through)
				}
				w.goesBeside(from)
				stream.goesOn()
				large.goOn()
			}
			goOn(holder)
			said, err := w.handOver(holder)
			if err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			heir := w.awaitHolder(w.Others(holder)...)
			goOn(heir)
			w.must(w.gateway(heir).Kill())
			next := w.awaitHolder(w.Others(heir)...)
			goOn(next)
			w.restartGateway(heir)
			goOn(next)
			stream.stop()
			large.stop()
			w.noLeak()
			w.oneHolder()
		})
	}
}

// The only gateway is killed, and what it carried goes on with its next process, which learns the connections anew.
func TestAGatewayLearnsAnewWhatItCarried(t *testing.T) {
	w := start(t, lab.Options{Nodes: 2, GatewayNodes: []int{1}, AgentArgs: fastPath, GatewayArgs: fastPath})
	w.seenEventually(selected(2), partner, theVIP)
	stream, large := w.startContent(selected(2)), w.startLarge(selected(2))
	for begun := time.Now(); time.Since(begun) < 3*time.Second; { // several leases, each by a packet that tracking judges
		stream.goesOn()
	}
	for range 3 {
		w.passesBeside(1)
		w.must(w.gateway(1).Kill())
		w.restartGateway(1)
		stream.goesOn()
		large.goOn()
	}
	for range 5 { // or what was beside netfilter may have had to pass it just then
		w.passesBeside(1)
		w.must(w.gateway(1).Pause())
		w.awaitSilent(selected(2), partner)
		w.nft(lab.PartnerHost, fmt.Sprintf(countVIP, theVIP))
		w.silent(selected(2))
		w.counted(lab.PartnerHost, nil, []string{`"as the VIP"`})
		w.must(w.gateway(1).Continue())
	}
	w.passesBeside(1)
	stream.stop()
	large.stop()
	w.noLeak()
}

// countVIP counts what arrives as the VIP from then on.
const countVIP = `
table ip watch
delete table ip watch
table ip watch {
	chain arrived {
		type filter hook prerouting priority -300
		ip saddr %s counter comment "as the VIP"
	}
}
`

// content is a connection on which random bytes are sent as fast as it takes them, and come back.
type content struct {
	w    *world
	conn *net.TCPConn
	same atomic.Int64 // bytes that came back as they were
	sent atomic.Int64
	quit atomic.Bool
	done chan error
}

func (w *world) startContent(pod string) *content {
	w.t.Helper()
	conn, err := w.Dial(pod, tcpTo(partner), patience)
	w.must(err)
	c := &content{w: w, conn: conn, done: make(chan error, 1)}
	w.t.Cleanup(func() { _ = conn.Close() })
	seed := [32]byte{byte(rand.Uint32())}
	go func() {
		random, chunk := rand.NewChaCha8(seed), make([]byte, 1<<16)
		for !c.quit.Load() {
			_, _ = random.Read(chunk)
			n, err := conn.Write(chunk)
			c.sent.Add(int64(n))
			if err != nil {
				return // which the reader finds out, too
			}
		}
		_ = conn.CloseWrite()
	}()
	go func() { c.done <- c.compare(rand.NewChaCha8(seed)) }()
	return c
}

func (c *content) compare(random io.Reader) error {
	r := bufio.NewReader(c.conn)
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	got, want := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := r.Read(got)
		_, _ = random.Read(want[:n])
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("after %d bytes others came back than were sent", c.same.Load())
		}
		c.same.Add(int64(n))
		if errors.Is(err, io.EOF) && c.same.Load() == c.sent.Load() {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%d bytes of %d: %w", c.same.Load(), c.sent.Load(), err)
		}
	}
}

// source is the port that the partner sees, for nobody else wants the pod's.
func (c *content) source() uint16 { return c.conn.LocalAddr().(*net.TCPAddr).AddrPort().Port() }

// goesOn waits for a megabyte more.
func (c *content) goesOn() {
	c.w.t.Helper()
	before := c.same.Load()
	c.w.await(func() error {
		select {
		case err := <-c.done:
			c.w.t.Fatalf("the stream ended: %v", err)
		default:
		}
		if now := c.same.Load(); now < before+1<<20 {
			return fmt.Errorf("%d bytes came back, before %d", now, before)
		}
		return nil
	})
}

// stop demands that all that was sent has come back.
func (c *content) stop() {
	c.w.t.Helper()
	c.quit.Store(true)
	c.w.must(c.conn.SetDeadline(time.Now().Add(patience)))
	if err := <-c.done; err != nil {
		c.w.t.Errorf("the stream: %v", err)
	}
}

// largest is a datagram that one packet of the tunnel has room for, with the partner's six bytes behind it.
const largest = innerMTU - 28 - 6

// datagrams are of one packet and of six by turns, each random by its number.
type datagrams struct {
	w    *world
	conn *net.UDPConn
	came [2]atomic.Int64
	bad  atomic.Pointer[string]
}

func datagram(n uint64) []byte {
	b := make([]byte, []int{largest, 8000}[n%2])
	be.BigEndian.PutUint64(b, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b[8:])
	return b
}

func (w *world) startLarge(pod string) *datagrams {
	w.t.Helper()
	d := &datagrams{w: w, conn: w.speaker(pod)}
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := uint64(0); ; n++ {
			<-tick.C
			if _, err := d.conn.Write(datagram(n)); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	go func() {
		buf := make([]byte, 1<<14)
		for {
			n, err := d.conn.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || n < 14 {
				continue
			}
			seq := be.BigEndian.Uint64(buf)
			if from, _ := netip.AddrFromSlice(buf[n-6 : n-2]); from != theVIP || !bytes.Equal(buf[:n-6], datagram(seq)) {
				bad := fmt.Sprintf("datagram %d is not as it was, or was seen from %s", seq, from)
				d.bad.CompareAndSwap(nil, &bad)
				continue
			}
			d.came[seq%2].Add(1)
		}
	}()
	return d
}

// goOn waits for a hundred more of each size.
func (d *datagrams) goOn() {
	d.w.t.Helper()
	for i := range d.came {
		before := d.came[i].Load()
		d.w.await(func() error {
			if now := d.came[i].Load(); now < before+100 {
				return fmt.Errorf("%d datagrams of kind %d came back, before %d", now, i, before)
			}
			return nil
		})
	}
}

func (d *datagrams) stop() {
	d.w.t.Helper()
	_ = d.conn.Close()
	if bad := d.bad.Load(); bad != nil {
		d.w.t.Error(*bad)
	}
}
