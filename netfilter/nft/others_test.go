package nft

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/netfilter"
)

func TestWhatOthersWrite(t *testing.T) {
	netns.Test(t)
	for _, c := range []struct {
		rule string // of nft, or of iptables-nft when it begins with -
		want netfilter.Writes
	}{
		{"meta mark set 0x1", netfilter.Writes{Mark: all}},
		{"meta mark set meta mark | 0x4000", netfilter.Writes{Mark: 0x4000}},
		{"meta mark set meta mark & 0xffff00ff | 0x0200", netfilter.Writes{Mark: 0xff00}},
		{"meta mark set meta mark ^ 0x3", netfilter.Writes{Mark: 0x3}},
		{"ct mark set ct mark | 0x8", netfilter.Writes{Mark: 0x8}},
		{"ct mark set meta mark", netfilter.Writes{Mark: all}},
		{"meta mark set ct mark & 0xff", netfilter.Writes{Mark: all}},
		{"meta mark set ip saddr map { 10.0.0.1 : 0x5 }", netfilter.Writes{Mark: all}},
		{"meta mark set meta mark map { 0x1 : 0x100 }", netfilter.Writes{Mark: all}},
		{"ct mark & 0x100 == 0x100 meta mark set meta mark | 0x20", netfilter.Writes{Mark: 0x20}},
		{"ct zone set 51", netfilter.Writes{Zones: []uint16{51}}},
		{"meta mark & 0x100 == 0x100 counter accept", netfilter.Writes{}},
		{"meta priority set 1:2", netfilter.Writes{}},
		{"ct mark != 0 ip saddr 10.0.0.1 drop", netfilter.Writes{}},
		{"-t mangle -A PREROUTING -j MARK --set-xmark 0x400/0xf00", netfilter.Writes{Mark: 0xf00}},
		{"-t mangle -A PREROUTING -j MARK --or-mark 0x2000", netfilter.Writes{Mark: 0x2000}},
		{"-t mangle -A PREROUTING -j CONNMARK --set-xmark 0x1/0x3", netfilter.Writes{Mark: 0x3}},
		{"-t mangle -A PREROUTING -j CONNMARK --restore-mark --nfmask 0xf0 --ctmask 0xf", netfilter.Writes{Mark: 0xff}},
		{"-t mangle -A PREROUTING -p tcp -j TPROXY --on-port 1 --tproxy-mark 0x539/0xfff", netfilter.Writes{Mark: 0xfff}},
		{"-t raw -A PREROUTING -j CT --zone 7", netfilter.Writes{Zones: []uint16{7}}},
		{"-t mangle -A PREROUTING -m mark --mark 0x1 -j ACCEPT", netfilter.Writes{}},
		{"-t mangle -N SALLY-X; iptables-nft -t mangle -A SALLY-X -j MARK --or-mark 0x2000", netfilter.Writes{}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			script := "nft flush ruleset; "
			if strings.HasPrefix(c.rule, "-") {
				script += "iptables-nft " + c.rule
				table := strings.Fields(c.rule)[1]
				c.want.Where = "nftables table ip " + table + ", chain PREROUTING"
			} else {
				script += "nft 'table inet theirs { chain c { type filter hook prerouting priority raw; }; }'; " +
					"nft 'add rule inet theirs c " + c.rule + "'; " +
					// Ours are left out, whatever they write.
					"nft 'table ip sally_node { chain c { meta mark set 0x1; ct zone set 9; }; }'"
				c.want.Where = "nftables table inet theirs, chain c"
			}
			// Not netns.Run: the test's own thread is in the namespace.
			if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var want []netfilter.Writes
			if c.want.Mark != 0 || c.want.Zones != nil {
				want = []netfilter.Writes{c.want}
			}
			got, err := Others()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
