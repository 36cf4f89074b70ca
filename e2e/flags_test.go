package e2e

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/e2e/netns"
)

// cli runs the program on a host of its own, and gives its exit status and what it
// printed on both outputs.
type cli struct {
	ns   *netns.NS
	args map[string][]string // that make a command succeed but for what the test adds
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	w := newWorld(t, lab.Options{Nodes: 1, PodsPerNode: 1})
	ns, err := w.Namespace("n1")
	w.must(err)
	key := filepath.Join(t.TempDir(), "key")
	w.must(os.WriteFile(key, []byte("a key that is long enough\n"), 0o600))
	common := []string{"--node-name", "n1", "--node-ip", "192.0.2.1", "--source", "dir:" + w.Manifests.Dir, "--state-dir", t.TempDir()}
	return &cli{ns: ns, args: map[string][]string{
		"agent":     append([]string{"agent"}, common...),
		"dashboard": {"dashboard", "--http", lab.GatewayHTTP},
		"allowlist": {"allowlist"},
		"gateway":   append([]string{"gateway", "--vip", "192.0.2.10", "--join", "192.0.2.1", "--gossip-key-file", key}, common...),
	}}
}

func (c *cli) run(t *testing.T, env []string, args ...string) (status int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	inside := c.ns.Command(binary, args...)
	cmd := exec.CommandContext(ctx, inside.Path, inside.Args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%v has not ended: %s", args, out.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// The last of a flag's values is the one that counts, so that each case breaks one
// flag of a command line that is good otherwise.
func TestABadFlagIsNamed(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := file("plain", "")
	const taken = "127.0.0.1:9873"
	if err := c.ns.Do(func() error {
		l, err := net.Listen("tcp", taken)
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		command, flag, value string
		words                []string
	}{
		{"agent", "--node-name", "", []string{"give the node's name"}},
		{"agent", "--node-ip", "", []string{"missing", "address of this node"}},
		{"agent", "--node-ip", "192.0.2", []string{"192.0.2", "not an IP address"}},
		{"agent", "--node-ip", "2001:db8::1", []string{"2001:db8::1", "IPv4"}},
		{"gateway", "--node-ip", "192.0.2.99", []string{"192.0.2.99"}},
		{"gateway", "--vip", "192.0.2.300", []string{"192.0.2.300", "no IP address", "192.0.2.10@eth0"}},
		{"gateway", "--vip", "192.0.2.10/24", []string{"prefix length"}},
		{"gateway", "--vip", "2001:db8::10", []string{"2001:db8::10", "IPv4"}},
		{"gateway", "--vip", "192.0.2.10", []string{"already", "remove one"}},
		{"gateway", "--vip", "192.0.2.11@eth0,10.0.0.1", []string{"via="}},
		{"agent", "--source", "", []string{"missing", "dir:PATH"}},
		{"agent", "--source", "/etc/sallyport", []string{"/etc/sallyport", "dir:PATH"}},
		{"agent", "--mark-mask", "green", []string{"green", "0x1f00"}},
		{"agent", "--mark-mask", "0x1f00zz", []string{"0x1f00zz", "0x1f00"}},
		{"agent", "--mark-mask", "0", []string{"0x1f00"}},
		{"agent", "--mark-mask", "0x101", []string{"0x101", "contiguous", "0x1f00"}},
		{"agent", "--netfilter", "pf", []string{"pf", "auto, nftables or iptables"}},
		{"agent", "--tunnel-device", "eth0", []string{"eth0", "begin with sally"}},
		{"agent", "--tunnel-port", "0", []string{"UDP port"}},
		{"agent", "--tunnel-port", "70000", []string{"70000"}},
		{"agent", "--tunnel-vni", "0", []string{"1 to 16777215"}},
		{"agent", "--table-base", "5", []string{"5", "256"}},
		{"agent", "--rule-priority", "32766", []string{"32766", "1 to 32765"}},
		{"agent", "--http", "localhost", []string{"localhost", "give ADDRESS:PORT"}},
		{"agent", "--state-dir", plain + "/state", []string{plain}},
		{"agent", "--log-level", "loud", []string{"loud", "debug, info, warn or error"}},
		{"gateway", "--replicas", "0", []string{"0", "normally 3"}},
		{"gateway", "--replicas", "three", []string{"three"}},
		{"gateway", "--replicas", "1000", []string{"1000"}},
		{"gateway", "--timing", "slow", []string{"slow", "default, fast or wan"}},
		{"gateway", "--conntrack-zone", "0", []string{"1 to 65535"}},
		{"gateway", "--node-ports", "30000", []string{"30000", "FIRST-LAST", "none"}},
		{"gateway", "--node-ports", "30000-32767x", []string{"30000-32767x", "FIRST-LAST"}},
		{"gateway", "--join", "192.0.2.1:0", []string{"192.0.2.1:0", "1 to 65535"}},
		{"gateway", "--join", "a/b", []string{"a/b", "host name"}},
		{"gateway", "--gossip-port", "0", []string{"port"}},
		{"gateway", "--gossip-key-file", "", []string{"missing", "head -c 32 /dev/urandom"}},
		{"gateway", "--gossip-key-file", plain + "-not-there", []string{plain + "-not-there"}},
		{"gateway", "--gossip-key-file", dir, []string{dir, "not a file"}},
		{"gateway", "--gossip-key-file", plain, []string{plain, "no key in it"}},
		{"gateway", "--gossip-key-file", file("short", "secret\n"), []string{"short", "at least 16", "head -c 32 /dev/urandom"}},
		{"gateway", "--allowlist-listen", "192.0.2.1", []string{"192.0.2.1", "give ADDRESS:PORT"}},
		{"gateway", "--allowlist-listen", taken, []string{taken, "in use by", "give another address and port, or end what has it"}},
		{"dashboard", "--http", "localhost", []string{"localhost", "give ADDRESS:PORT"}},
		{"dashboard", "--http", "http://127.0.0.1:9871/", []string{"http://127.0.0.1:9871/", "give ADDRESS:PORT"}},
		{"dashboard", "--http", "", []string{"give ADDRESS:PORT"}},
		{"dashboard", "--http", "127.0.0.1:70000", []string{"70000", "invalid port"}},
		{"dashboard", "--gateway", "n1", []string{"not with --http alone", "leave one of the two out"}},
		{"dashboard", "--port", "8080", []string{"not with --http alone"}},
		{"dashboard", "--port", "70000", []string{"70000"}},
		{"dashboard", "--kubeconfig", plain + "-not-there", []string{plain + "-not-there"}},
		{"allowlist", "--route", "", []string{"would take everything", "name some"}},
		{"allowlist", "--within", "", []string{"would take everything", "name some"}},
		{"allowlist", "--within", "192.0.2.10/24", []string{"give a range"}},
	} {
		t.Run(f.command+" "+f.flag+"="+strings.ReplaceAll(f.value, "/", "|"), func(t *testing.T) {
			status, out := c.run(t, nil, append(c.args[f.command], f.flag+"="+f.value)...)
			if status != 1 {
				t.Errorf("exit status %d, want 1", status)
			}
			for _, word := range append(f.words, f.flag) {
				if !strings.Contains(out, word) {
					t.Errorf("the error lacks %q: %s", word, out)
				}
			}
		})
	}
}

func TestABadEnvironmentVariableIsNamed(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	for variable, words := range map[string][]string{
		"SALLYPORT_TUNNEL_PORT=many": {"SALLYPORT_TUNNEL_PORT", "many"},
		"SALLYPORT_NETFILTER=pf":     {"--netfilter pf", "auto, nftables or iptables"},
	} {
		status, out := c.run(t, []string{variable}, c.args["agent"]...)
		for _, word := range words {
			if status != 1 || !strings.Contains(out, word) {
				t.Errorf("%s: exit status %d, lacks %q: %s", variable, status, word, out)
			}
		}
	}
}

func TestAPortInUseIsNamed(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	var taken net.Listener
	if err := c.ns.Do(func() (err error) {
		taken, err = net.Listen("tcp4", "127.0.0.1:9872")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	status, out := c.run(t, nil, c.args["agent"]...)
	for _, word := range []string{"--http 127.0.0.1:9872", "in use", "another"} {
		if status != 1 || !strings.Contains(out, word) {
			t.Errorf("exit status %d, lacks %q: %s", status, word, out)
		}
	}
}

func TestStatusOfNobody(t *testing.T) {
	t.Parallel()
	status, out := newCLI(t).run(t, nil, "status", "--http", "127.0.0.1:9871")
	for _, word := range []string{"127.0.0.1:9871", "connection refused", "is a gateway running there", "127.0.0.1:9872"} {
		if status != 1 || !strings.Contains(out, word) {
			t.Errorf("exit status %d, lacks %q: %s", status, word, out)
		}
	}
}

func TestCheckTellsByItsExitStatus(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const head = "apiVersion: sallyport.dev/v1alpha1\nkind: EgressRoute\nmetadata: {name: "
	good := write("good/payments.yaml", head+"payments}\nspec:\n  vip: 192.0.2.10\n  namespaceSelector: {}\n  destinations:\n  - cidr: 203.0.113.5/32\n")
	wide := write("wide.yaml", head+"wide}\nspec:\n  vip: 192.0.2.10\n  namespaceSelector: {}\n  destinations:\n  - cidr: 203.0.113.0/24\n")
	bad := write("bad/bad.yaml", head+"bad}\nspec:\n  vip: 192.0.2.10\n  namespaceSelector: {}\n  destinations:\n  - cidr: 203.0.113.0/33\n")
	for _, k := range []struct {
		args  []string
		want  int
		words []string
	}{
		{[]string{good}, 0, []string{"no problems"}},
		{[]string{filepath.Dir(good)}, 0, []string{"no problems"}},
		{[]string{bad}, 1, []string{bad + ":8", "EgressRoute bad", "spec.destinations[0].cidr", "203.0.113.0/33"}},
		{[]string{filepath.Dir(bad), good}, 1, []string{bad + ":8"}},
		{[]string{good, wide}, 1, []string{wide, "EgressRoute wide", "203.0.113.5/32 of EgressRoute payments", "the longer prefix"}},
		{[]string{dir}, 1, []string{bad, "EgressRoute wide"}},
		{[]string{filepath.Join(dir, "nothing")}, 1, []string{"nothing", "no such file"}},
		{nil, 1, []string{"at least 1 arg"}},
	} {
		status, out := c.run(t, nil, append([]string{"check"}, k.args...)...)
		if status != k.want {
			t.Errorf("check %v: exit status %d, want %d: %s", k.args, status, k.want, out)
		}
		for _, word := range k.words {
			if !strings.Contains(out, word) {
				t.Errorf("check %v lacks %q: %s", k.args, word, out)
			}
		}
	}
}
