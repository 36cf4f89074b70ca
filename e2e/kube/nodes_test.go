package kube_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/netns"
)

const clusterNFT = `
table inet firewall {
	set cluster4 { type ipv4_addr; comment "sallyport"; }
	chain input {
		type filter hook input priority 0;
		ip daddr 10.0.0.254 tcp dport 443 ip saddr != @cluster4 reject with tcp reset
	}
}`

// partner is a host that nodes connect to, and the nodes' addresses on the other end of
// its only wire.
type partner struct {
	t           *testing.T
	host, nodes *netns.NS
	program     string
	kubeconfig  string
	state       string
	missed      atomic.Int64 // connections to the API server when it was away
}

func newPartner(t *testing.T) *partner {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	p := &partner{t: t, state: t.TempDir(), program: os.Getenv("SALLYPORT_BIN")}
	if p.program == "" {
		p.program = filepath.Join(t.TempDir(), "sallyport")
		build := exec.Command("go", "build", "-o", p.program, "github.com/sallyport/sallyport/cmd/sallyport")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build sallyport: %v: %s", err, out)
		}
	}
	for name, ns := range map[string]**netns.NS{"partner": &p.host, "nodes": &p.nodes} {
		n, err := netns.New(fmt.Sprintf("sally-%s-%d", name, os.Getpid()))
		must(t, err)
		t.Cleanup(func() { must(t, n.Close()) })
		*ns = n
	}
	p.sh(p.host, "ip link set lo up; ip link add eth0 type veth peer name eth0 netns "+p.nodes.Name+"; ip link set eth0 up; ip addr add 10.0.0.254/24 dev eth0")
	p.sh(p.nodes, "ip link set eth0 up; for n in 1 2 3; do ip addr add 10.0.0.$n/24 dev eth0; done")
	kubectl(t, cluster.SeeNodes("{apiGroup: rbac.authorization.k8s.io, kind: User, name: partner}"), "apply", "-f", "-")
	p.kubeconfig = as(t, "partner")
	at, err := url.Parse(server.URL)
	must(t, err)
	p.listen(at.Host, func(c net.Conn) {
		to, err := net.Dial("tcp", at.Host)
		if err != nil {
			p.missed.Add(1)
			return
		}
		defer to.Close()
		done := make(chan bool, 2)
		for _, pair := range [][2]net.Conn{{c, to}, {to, c}} {
			go func() { _, _ = io.Copy(pair[0], pair[1]); done <- true }()
		}
		<-done
	})
	p.listen("10.0.0.254:443", func(net.Conn) {})
	return p
}

func (p *partner) sh(ns *netns.NS, command string) {
	p.t.Helper()
	_, err := ns.Run("sh", "-ec", command)
	must(p.t, err)
}

// listen serves on the partner's host; what is dialled meanwhile is dialled outside of it.
func (p *partner) listen(at string, serve func(net.Conn)) {
	p.t.Helper()
	var l net.Listener
	must(p.t, p.host.Do(func() (err error) { l, err = net.Listen("tcp", at); return err }))
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
}

// boot loads the firewall, which admits nobody yet.
func (p *partner) boot() {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "nftables.conf")
	must(p.t, os.WriteFile(file, []byte("flush ruleset"+clusterNFT), 0o644))
	p.sh(p.host, "nft -f "+file)
}

// output of a program, while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string { o.mu.Lock(); defer o.mu.Unlock(); return o.text.String() }

func (p *partner) sync() (log *output, stop func()) {
	p.t.Helper()
	log = &output{}
	cmd := p.host.Command(p.program, "allowlist", "sync", "--nodes", "--kubeconfig", p.kubeconfig, "--nft", "inet/firewall/cluster", "--state-dir", p.state)
	cmd.Stdout, cmd.Stderr = log, log
	must(p.t, cmd.Start())
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || p.t.Failed() {
			p.t.Errorf("sync ended: %v\n%s", err, log)
		}
	})
	p.t.Cleanup(stop)
	return log, stop
}

// admits says whether a node can connect.
func (p *partner) admits(node int) bool {
	err := p.nodes.Do(func() error {
		d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(node))}}
		c, err := d.Dial("tcp4", "10.0.0.254:443")
		if err == nil {
			c.Close()
		}
		return err
	})
	return err == nil
}

// admitted waits until these nodes and no others can connect.
func (p *partner) admitted(nodes ...int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("nodes %v admitted, and no others", nodes), func() bool {
		want, got := fmt.Sprint(nodes), []int{}
		for n := 1; n <= 3; n++ {
			if p.admits(n) {
				got = append(got, n)
			}
		}
		return fmt.Sprint(got) == want
	})
}

func TestAPartnerAdmitsTheNodes(t *testing.T) {
	api := admin(t)
	p := newPartner(t)
	p.boot()
	api.addNode(t, 1)
	_, stop := p.sync()
	p.admitted(1)
	api.addNode(t, 2)
	p.admitted(1, 2)
	api.patch(t, "nodes", "", "n2", `{"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.3"},{"type":"ExternalIP","address":"10.0.0.2"}]}}`, "status")
	p.admitted(1, 3)
	api.remove(t, "nodes", "", "n2")
	p.admitted(1)

	up := down(t)
	eventually(t, "that it misses the API server", func() bool { return p.missed.Load() > 0 })
	p.admitted(1)
	p.boot() // the firewall is loaded anew, with the API server away
	p.admitted(1)
	stop()
	p.boot() // and so is the host
	log, _ := p.sync()
	p.admitted(1)
	up()
	api.addNode(t, 2)
	p.admitted(1, 2)

	// A store without nodes is no cluster: the last node stays admitted.
	api.remove(t, "nodes", "", "n1")
	p.admitted(2)
	api.remove(t, "nodes", "", "n2")
	eventually(t, "that it does not believe it", func() bool { return strings.Contains(log.String(), "no address") })
	p.admitted(2)
	api.addNode(t, 3)
	p.admitted(3)
}

func TestAPartnerWithoutTheRightIsTold(t *testing.T) {
	api := admin(t)
	api.addNode(t, 1)
	p := newPartner(t)
	p.kubeconfig = as(t, "nobody")
	log, _ := p.sync()
	eventually(t, "what is missing", func() bool { return contains(log.String(), "not allowed", "nodes", "grant") })
	out, err := p.host.Run(p.program, "allowlist", "--nodes", "--kubeconfig", p.kubeconfig)
	if err == nil || !contains(out, "not allowed", "grant") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = p.host.Run(p.program, "allowlist", "--nodes", "--kubeconfig", as(t, "partner"))
	if err != nil || out != "10.0.0.1\tn1\n" {
		t.Errorf("%v: %q", err, out)
	}
}
