package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/gateway/kube"
	"github.com/sallyport/sallyport/gateway/manifest"
	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/spelling"
	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/vip"
)

const prefix = "SALLYPORT_" // of our variables

// environment names the variable that sets a flag.
func environment(f *pflag.Flag) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// fromEnvironment sets the flags that the command line does not.
func fromEnvironment(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := environment(f)
		value, set := os.LookupEnv(name)
		if !set || f.Changed {
			return
		}
		values := []string{value}
		if f.Value.Type() == "stringArray" { // VIPs have commas of their own
			values = strings.Fields(value)
		}
		for _, v := range values {
			if err := cmd.Flags().Set(f.Name, v); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: %w", name, value, err))
			}
		}
	})
	return errors.Join(errs...)
}

// links are what Kubernetes sets of a Service (kubernetes.io/docs/concepts/services-networking/service,
// environment variables), one called sallyport among them.
var links = regexp.MustCompile(`_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// misspelt names the variables that no command reads and that look like one of those that
// some do: one environment may be for several.
func misspelt(cmd *cobra.Command, environ []string) (warnings []string) {
	known := map[string]bool{}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			flags.VisitAll(func(f *pflag.Flag) { known[environment(f)] = true })
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(cmd.Root())
	var names []string
	for _, name := range slices.Sorted(maps.Keys(known)) {
		names = append(names, strings.TrimPrefix(name, prefix))
	}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		short, ours := strings.CutPrefix(name, prefix)
		if !ours || known[name] || links.MatchString("_"+short) && (!strings.HasSuffix(name, "_PORT") || strings.Contains(value, "://")) {
			continue
		}
		if meant := spelling.Nearest(short, names); meant != "" {
			warnings = append(warnings, fmt.Sprintf("%s is not read by anything: %s%s is", name, prefix, meant))
		}
	}
	return warnings
}

// logger writes text for a person on a terminal, JSON otherwise.
func logger(cmd *cobra.Command) (*slog.Logger, error) {
	name, _ := cmd.Flags().GetString("log-level")
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return nil, fmt.Errorf("--log-level %s: choose debug, info, warn or error", name)
	}
	options := &slog.HandlerOptions{Level: level}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
}

// common are the flags that gateway and agent share.
type common struct {
	nodeName, nodeIP string
	vips             []string
	source           string
	kubeconfig       string
	cluster          *kube.Client // once something needs it
	http, tokenFile  string
	stateDir         string
	netfilter        string
	device           string
	port             uint16
	vni              uint32
	markMask         string
	tableBase        int
	rulePriority     int
	internal         []string
}

func (c *common) register(f *pflag.FlagSet, http, vipUsage string) {
	d := tunnel.DefaultConfig()
	hostname, _ := os.Hostname()
	f.StringVar(&c.nodeName, "node-name", hostname, "name of this node, as in its Node object")
	f.StringVar(&c.nodeIP, "node-ip", "", "address of this node that the tunnel and the gossip use")
	f.StringArrayVar(&c.vips, "vip", nil, vipUsage)
	f.StringVar(&c.source, "source", "", "where routes, pods, namespaces and nodes come from: kube, the API server, or dir:PATH, a folder of YAML files")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "file that says how to reach the API server; without it, as a pod of the cluster does")
	f.StringVar(&c.http, "http", http, "address of /status, /healthz, /readyz and /metrics, and of a gateway's status page")
	f.StringVar(&c.tokenFile, "http-token-file", "",
		"file with the token that whoever is not on this host must give at --http for the page, /status, /trace and /doctor; without, the page is for this host, and the others for everybody")
	f.StringVar(&c.stateDir, "state-dir", "/var/lib/sallyport", "folder for the last good view, used at a start without the source")
	f.StringVar(&c.netfilter, "netfilter", host.Auto, "packet filter: auto, nftables or iptables (with ipset)")
	f.StringVar(&c.device, "tunnel-device", d.Device, "name of the tunnel device; must begin with sally")
	f.Uint16Var(&c.port, "tunnel-port", d.Port, "UDP port of the tunnel, the same on all nodes")
	f.Uint32Var(&c.vni, "tunnel-vni", d.VNI, "VXLAN network identifier, the same on all nodes")
	f.StringVar(&c.markMask, "mark-mask", fmt.Sprintf("%#x", d.Marks.Mask), "bits of the packet and connection mark that are ours, one contiguous field")
	f.IntVar(&c.tableBase, "table-base", d.TableBase, "first of the routing tables that are ours, one for each mark value")
	f.StringSliceVar(&c.internal, "internal-cidr", nil, "ranges that no route ever takes, separated by commas, such as the Service range; nodes, pods and VIPs are left out anyway")
	f.IntVar(&c.rulePriority, "rule-priority", d.RulePriority, "priority of our ip rules, before 32766")
}

// resolved are the common flags after parsing.
type resolved struct {
	nodeIP   netip.Addr
	vips     []vip.VIP
	internal []netip.Prefix
	source   host.Source
	tunnel   tunnel.Config
}

// connect prepares for the API server, once.
func (c *common) connect(program string, log *slog.Logger) (*kube.Client, error) {
	if c.cluster != nil {
		return c.cluster, nil
	}
	var err error
	c.cluster, err = kube.Connect(c.kubeconfig, "sallyport-"+program+"/"+version(), log)
	return c.cluster, err
}

// resolve makes sense of the flags; podsOf is the node whose pods matter, "" all.
func (c *common) resolve(program, podsOf string, log *slog.Logger) (resolved, error) {
	var r resolved
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.nodeName == "" {
		fail("--node-name is empty: give the node's name")
	}
	var err error
	switch r.nodeIP, err = netip.ParseAddr(c.nodeIP); {
	case c.nodeIP == "":
		fail("--node-ip is missing: give the address of this node that the other nodes reach")
	case err != nil:
		fail("--node-ip %s: not an IP address", c.nodeIP)
	case !r.nodeIP.Is4():
		fail("--node-ip %s: IPv6 is not there yet, give the node's IPv4 address", c.nodeIP)
	}
	if r.vips, err = vip.ParseAll(c.vips); err != nil {
		errs = append(errs, err)
	}
	for _, v := range r.vips {
		if !v.Addr.Is4() {
			fail("--vip %s: IPv6 is not there yet, give an IPv4 address", v)
		}
	}
	if r.internal, err = prefixes("--internal-cidr", c.internal); err != nil {
		errs = append(errs, err)
	}
	path, ok := strings.CutPrefix(c.source, "dir:")
	switch {
	case c.source == "":
		fail("--source is missing: give kube, or dir:PATH, a folder of YAML files")
	case c.source == "kube":
		if cluster, err := c.connect(program, log); err != nil {
			errs = append(errs, err)
		} else {
			r.source = kube.NewSource(cluster, podsOf)
		}
	case !ok || path == "":
		fail("--source %s: give kube, or dir:PATH, a folder of YAML files", c.source)
	default:
		r.source = manifest.New(path, log)
	}
	r.tunnel = tunnel.Config{
		Device: c.device, Port: c.port, VNI: c.vni, TableBase: c.tableBase, RulePriority: c.rulePriority,
	}
	mask, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(c.markMask), "0x"), 16, 32)
	r.tunnel.Marks.Mask = uint32(mask)
	if err != nil {
		fail("--mark-mask %s: give a hexadecimal number of 32 bits, such as 0x1f00", c.markMask)
	} else if err := r.tunnel.Validate(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		if err := os.MkdirAll(c.stateDir, 0o755); err != nil {
			fail("--state-dir: %w", err)
		}
	}
	return r, errors.Join(errs...)
}

func prefixes(flag string, texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	var errs []error
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			errs = append(errs, fmt.Errorf("%s %s: give a range such as 10.96.0.0/12", flag, text))
			continue
		}
		all = append(all, p)
	}
	return all, errors.Join(errs...)
}

// portRange reads "30000-32767"; "none" is no range.
func portRange(s string) (nf.Ports, error) {
	if s == "none" || s == "" {
		return nf.Ports{}, nil
	}
	var p nf.Ports
	_, err := fmt.Sscanf(s, "%d-%d", &p.First, &p.Last)
	rest := strings.TrimPrefix(s, fmt.Sprintf("%d-%d", p.First, p.Last)) // Sscanf stops where the number does
	if err != nil || rest != "" || p.First < 2048 || p.Last < p.First || p.Last > 60000 {
		return nf.Ports{}, fmt.Errorf("--node-ports %s: give FIRST-LAST between 2048 and 60000, such as 30000-32767, or none", s)
	}
	return p, nil
}
