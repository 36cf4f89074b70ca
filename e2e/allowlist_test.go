package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/e2e/lab"
)

// The partner's two firewalls, both of which must admit who connects to PublicAddr.
const (
	partnersNFT = `
table inet firewall {
	set partners4 { type ipv4_addr; comment "sallyport"; }
	chain input {
		type filter hook input priority 10;
		ip daddr 203.0.113.9 tcp dport 8443 ip saddr != @partners4 reject with tcp reset
	}
}`
	partnersRule = "-d 203.0.113.9 -p tcp --dport 8443 -m set ! --match-set partners4 src -j REJECT --reject-with tcp-reset"
)

const kyc = `
vip: 192.0.2.11
namespaceSelector: {}
destinations:
- cidr: 203.0.113.9/32
`

// syncs are `sallyport allowlist sync` on the partner's host, one for each firewall.
type syncs struct {
	*world
	kinds map[string]allowlist.Sets
	args  map[string][]string
	state string
	end   []func()
}

func newSyncs(w *world) *syncs {
	var urls []string
	for j := 1; j <= w.Options.Nodes; j++ {
		urls = append(urls, fmt.Sprintf("http://%s:9873", w.NodeIP(j)))
	}
	common := []string{"--url", strings.Join(urls, ","), "--within", "192.0.2.0/24"}
	return &syncs{
		world: w, state: w.t.TempDir(),
		kinds: map[string]allowlist.Sets{"nft": {Family: "inet", Table: "firewall", Name: "partners"}, "ipset": {Name: "partners"}},
		args:  map[string][]string{"nft": append(common, "--nft", "inet/firewall/partners"), "ipset": append(common, "--ipset", "partners")},
	}
}

// boot is what the partner's host does before it starts services: its firewalls, with
// empty sets.
func (s *syncs) boot() {
	s.t.Helper()
	sh := func(command string) {
		s.t.Helper()
		_, err := s.Exec(lab.PartnerHost, "sh", "-ec", command)
		s.must(err)
	}
	// As PartnerAddr it would not be answered: the lab admits only the VIPs to it.
	sh("ip route replace 192.0.2.0/24 via 203.0.113.1 src " + lab.PublicAddr.String())
	sh("nft delete table inet firewall 2>/dev/null || true; iptables -D INPUT " + partnersRule + " 2>/dev/null || true; ipset destroy partners4 2>/dev/null || true")
	file := filepath.Join(s.t.TempDir(), "nftables.conf")
	s.must(os.WriteFile(file, []byte(partnersNFT), 0o644))
	sh("nft -f " + file + "; ipset create partners4 hash:ip comment; iptables -A INPUT " + partnersRule)
}

func (s *syncs) start() {
	s.t.Helper()
	ns, err := s.Namespace(lab.PartnerHost)
	s.must(err)
	for kind, args := range s.args {
		var log bytes.Buffer
		cmd := ns.Command(binary, append([]string{"allowlist", "sync", "--state-dir", filepath.Join(s.state, kind)}, args...)...)
		cmd.Stdout, cmd.Stderr = &log, &log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		s.must(cmd.Start())
		ended := false
		end := func() {
			if ended {
				return
			}
			ended = true
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil || s.t.Failed() {
				s.t.Errorf("sync of %s ended: %v\n%s", kind, err, log.String())
			}
		}
		s.end = append(s.end, end)
		s.t.Cleanup(end)
	}
}

func (s *syncs) stop() {
	for _, end := range s.end {
		end()
	}
	s.end = nil
}

// hold waits until the sets of both firewalls are these.
func (s *syncs) hold(want ...string) {
	s.t.Helper()
	for kind, sets := range s.kinds {
		s.must(lab.Await(time.Minute, func() error {
			set := allowlist.Set{Sets: sets, Version: 4}
			out, err := s.Exec(lab.PartnerHost, set.Listing()[0], set.Listing()[1:]...)
			if err != nil {
				return err
			}
			found, err := set.Parse([]byte(out))
			if err != nil {
				return err
			}
			var got []string
			for a := range found.Addresses {
				got = append(got, a.String())
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				return fmt.Errorf("%s holds %v, want %v", kind, got, want)
			}
			return nil
		}))
	}
}

func TestThePartnersFirewallFollowsTheRoutes(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{
		VIPs: []netip.Addr{theVIP, netip.MustParseAddr("192.0.2.11")}, GatewayArgs: []string{"--allowlist-listen", "0.0.0.0:9873"},
	})
	second, pod := w.Options.VIPs[1], selected(1)
	w.must(w.Annotate(pod, "payments,kyc"))
	s := newSyncs(w)
	s.boot()
	s.start()
	s.hold("192.0.2.10")
	if seen, err := w.SeenAs(pod, lab.PublicAddr, 3*time.Second); err == nil {
		t.Fatalf("%s is admitted as %s before there is a route: the firewalls admit everybody", pod, seen)
	}

	w.must(w.Manifests.WriteRoute("kyc", kyc))
	s.hold("192.0.2.10", "192.0.2.11")
	w.seenEventually(pod, lab.PublicAddr, second)

	// The gateway that is asked dies: the next tells of what changes then.
	first, err := w.Program(lab.Gateway, 1)
	w.must(err)
	w.must(first.Kill())
	w.must(w.Manifests.WriteRoute("kyc", strings.Replace(kyc, "192.0.2.11", "192.0.2.10", 1)))
	s.hold("192.0.2.10")
	w.seenEventually(pod, lab.PublicAddr, theVIP)

	// All of them die, and then the partner loads its firewall anew, and then its host boots.
	for j := 2; j <= w.Options.Nodes; j++ {
		p, err := w.Program(lab.Gateway, j)
		w.must(err)
		w.must(p.Kill())
	}
	s.boot()
	s.hold("192.0.2.10")
	s.stop()
	s.boot()
	s.start()
	s.hold("192.0.2.10")

	// The last route goes, which is meant, and one comes again.
	w.must(w.Manifests.Remove("EgressRoute", "", "kyc"))
	w.must(w.Manifests.Remove("EgressRoute", "", "payments"))
	for j := 1; j <= w.Options.Nodes; j++ {
		_, err := w.StartGateway(j)
		w.must(err)
	}
	s.hold()
	if seen, err := w.SeenAs(pod, lab.PublicAddr, 3*time.Second); err == nil {
		t.Errorf("%s is admitted as %s", pod, seen)
	}
	w.must(w.Manifests.WriteRoute("kyc", kyc))
	s.hold("192.0.2.11")
	w.seenEventually(pod, lab.PublicAddr, second)
	s.stop()
	s.hold("192.0.2.11") // it leaves them so
}
