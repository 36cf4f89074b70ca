package conntrack_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/flows/conntrack"
)

func TestFindReadsTheOneThatAnswers(t *testing.T) {
	track(t)
	for i, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		original := conntrack.Tuple{Src: netip.MustParseAddr(podA), Dst: netip.MustParseAddr("203.0.113.5"), Protocol: proto, SrcPort: 4000, DstPort: 53}
		reply := original.Inverse()
		reply.Dst, reply.DstPort = vip, 4001
		e := conntrack.Entry{Original: original, Reply: reply, Zone: zone, Timeout: time.Minute, Mark: 0x50100 + uint32(i), Status: conntrack.SeenReply | conntrack.Assured}
		if proto == unix.IPPROTO_TCP {
			e.TCPState = conntrack.TCPEstablished
		}
		if err := conntrack.Insert(e); err != nil {
			t.Fatal(err)
		}
		got, err := conntrack.Find(reply, zone)
		if err != nil || got.Original != original || got.Reply != reply || got.Mark != e.Mark || got.Zone != zone || got.TCPState != e.TCPState {
			t.Errorf("found %+v, %v, want %+v", got, err, e)
		}
		if _, err := conntrack.Find(reply, zone+1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("in another zone: %v", err)
		}
		reply.DstPort++
		if _, err := conntrack.Find(reply, zone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of another port: %v", err)
		}
	}
}
