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

func TestInsertAndUpdateSayWhatIsThere(t *testing.T) {
	track(t)
	from := func(addr string) conntrack.Entry {
		original := conntrack.Tuple{Src: netip.MustParseAddr(addr), Dst: netip.MustParseAddr("203.0.113.5"),
			Protocol: unix.IPPROTO_UDP, SrcPort: 4000, DstPort: 53}
		reply := original.Inverse()
		reply.Dst, reply.DstPort = vip, 4001
		return conntrack.Entry{Original: original, Reply: reply, Zone: zone, Timeout: time.Minute, Status: conntrack.SeenReply}
	}
	e := from(podA)
	if err := conntrack.Update(e); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("update of what is not there: %v, want %v", err, fs.ErrNotExist)
	}
	if err := conntrack.Insert(e); err != nil {
		t.Fatal(err)
	}
	if err := conntrack.Insert(e); !errors.Is(err, fs.ErrExist) {
		t.Errorf("insert of what is there: %v, want %v", err, fs.ErrExist)
	}
	if err := conntrack.UpdateTranslation(e); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("update of the translation: %v, want %v", err, unix.EOPNOTSUPP)
	}
	e.Status |= conntrack.Assured
	if err := conntrack.Update(e); err != nil {
		t.Fatal(err)
	}
	got, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, all)
	if err != nil || len(got) != 1 || got[0].Status&conntrack.Assured == 0 || got[0].Reply != e.Reply {
		t.Errorf("after the update: %+v, %v", got, err)
	}
	if err := conntrack.Delete(e); err != nil { // one of another host: it has no id here
		t.Fatal(err)
	}
	if n := count(t, conntrack.Mark{}, all); n != 0 {
		t.Errorf("%d entries after the delete, want none", n)
	}

	e.Timeout = 0
	if err := conntrack.Insert(e); err == nil {
		t.Error("an entry without a timeout is accepted")
	}
	e = from(podA)
	e.Reply.Src = vip
	if err := conntrack.Insert(e); err == nil {
		t.Error("an entry whose destination is translated is accepted")
	}
}

func TestInsertIPv6(t *testing.T) {
	track(t)
	must(t, "nft", "table ip6 t { chain out { type nat hook postrouting priority srcnat; }; }")
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6} {
		e := conntrack.Entry{Zone: zone, Timeout: time.Minute, Status: conntrack.SeenReply | conntrack.Assured}
		e.Original = conntrack.Tuple{Src: netip.MustParseAddr("2001:db8:f::10"), Dst: netip.MustParseAddr("2001:db8:5::5"), Protocol: proto}
		if proto == unix.IPPROTO_ICMPV6 {
			e.Original.ICMPID, e.Original.ICMPType = 11, 128
		} else {
			e.Original.SrcPort, e.Original.DstPort = 4000, 443
		}
		if e.Reply = e.Original.Inverse(); proto == unix.IPPROTO_ICMPV6 {
			e.Reply.ICMPID = 12
		} else {
			e.Reply.DstPort = 4001
		}
		e.Reply.Dst = netip.MustParseAddr("2001:db8:a::10")
		if err := conntrack.Insert(e); err != nil {
			t.Fatal(err)
		}
		got, err := conntrack.Dump(conntrack.IPv6, conntrack.Mark{}, func(g *conntrack.Entry) bool { return g.Original == e.Original })
		if err != nil || len(got) != 1 || got[0].Reply != e.Reply {
			t.Errorf("protocol %d: inserted %+v, read back %+v, %v", proto, e, got, err)
		}
	}
}
