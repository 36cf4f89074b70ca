package node

import (
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/steer/tcx"
	"github.com/sallyport/sallyport/tunnel"
)

// The interfaces are looked at when something of the node's changed, and now and then, but
// not for each view. A queueing discipline at a pod's interface is what a look finds.
func TestTheFastPathLooksWhenSomethingChanged(t *testing.T) {
	netns.Test(t)
	run := func(commands string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", commands).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	tunnelUp := "ip link add sally0 type vxlan external gpe dstport 4793; ip link set sally0 mtu 1464 up"
	run("ip link add pod type veth peer name far; ip link set pod up; ip link set far up; " + tunnelUp)
	pod, err := net.InterfaceByName("pod")
	if err != nil {
		t.Fatal(err)
	}
	attached := func() bool {
		t.Helper()
		found, err := link.QueryPrograms(link.QueryOptions{Target: pod.Index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			t.Fatal(err)
		}
		return len(found.Programs) > 0
	}
	f := fastPath{on: true, node: "n1", local: netip.MustParseAddr("192.0.2.1"), cfg: tunnel.DefaultConfig(), log: slog.New(slog.DiscardHandler)}
	defer f.close()
	first := tcx.State{Homes: map[netip.Addr]int{netip.MustParseAddr("10.9.0.2"): pod.Index}, Remotes: []netip.Addr{netip.MustParseAddr("192.0.2.10")}}
	more := first
	more.Homes = maps.Clone(first.Homes)
	more.Homes[netip.MustParseAddr("10.9.0.3")] = pod.Index
	for _, c := range []struct {
		what  string
		state tcx.State
		after time.Duration
		do    string
		looks bool
	}{
		{"the same view", first, 0, "", false},
		{"a view more", first, look - 1, "", false},
		{"another pod", more, 0, "", true},
		{"another VIP", tcx.State{Homes: first.Homes}, 0, "", true},
		{"a look is due", first, look, "", true},
		{"a new device", first, 0, "ip link del sally0; " + tunnelUp, true},
	} {
		begin := time.Now()
		f.set(first, begin)
		if f.failed != nil || !attached() {
			t.Fatalf("%s: the path is not at the pod: %v", c.what, f.failed)
		}
		run("tc qdisc add dev pod root pfifo; " + c.do)
		f.set(c.state, begin.Add(c.after))
		if looked := !attached(); looked != c.looks || f.failed != nil {
			t.Errorf("%s: looked %t, want %t, %v", c.what, looked, c.looks, f.failed)
		}
		run("tc qdisc del dev pod root")
		f.looked = time.Time{}
	}
}
