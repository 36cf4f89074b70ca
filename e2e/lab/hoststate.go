package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// HostState is what a host's kernel is configured to do, as the usual tools list
// it, without what counts or ages.
type HostState []Section

// Section is the listing of one tool.
type Section struct{ Title, Text string }

var listings = [][]string{
	{"iptables-nft-save"}, {"iptables-legacy-save"}, {"ip6tables-nft-save"}, {"ip6tables-legacy-save"},
	{"nft", "-s", "list", "ruleset"},
	{"ipset", "list"},
	{"ip", "rule"}, {"ip", "-6", "rule"},
	{"ip", "route", "show", "table", "all"}, {"ip", "-6", "route", "show", "table", "all"},
	{"ip", "-d", "link"}, {"ip", "addr"},
}

var restless = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^# (Generated|Completed|Warning).*\n`),
	regexp.MustCompile(`\[\d+:\d+\]`),
	regexp.MustCompile(`(?m)^(References|Size in memory): .*\n`),                   // ipset
	regexp.MustCompile(` (timeout|packets|bytes|expires) \d+\w*`),                  // elements that age or count
	regexp.MustCompile(` \w+_timer +[\d.]+`),                                       // bridges
	regexp.MustCompile(` (tentative|valid_lft \S+|preferred_lft \S+|expires \S+)`), // addresses
	regexp.MustCompile(`(?m)^(\d+): ([^:@]+)@if\d+:|^(\d+): `),                     // numbering
	regexp.MustCompile(` link-netns(id)? \S+`),
	regexp.MustCompile(` linkdown| promiscuity \d+| allmulti \d+| (min|max)mtu \d+| state (UP|DOWN|LOWERLAYERDOWN)`),
}

// sysctls that a gateway or an agent might set.
var sysctlFiles = []string{
	"ipv4/ip_forward", "ipv4/conf/*/rp_filter", "ipv4/conf/*/arp_ignore", "ipv4/conf/*/arp_announce", "ipv4/conf/*/arp_notify",
	"ipv4/conf/*/accept_local", "ipv4/conf/*/forwarding", "ipv4/conf/*/src_valid_mark", "ipv4/conf/*/route_localnet",
	"ipv4/conf/*/send_redirects", "ipv4/fib_multipath_hash_policy", "ipv6/conf/*/forwarding", "netfilter/nf_conntrack_*",
}

// HostState lists the state of a host of the lab.
func (l *Lab) HostState(host string) (HostState, error) {
	ns, err := l.Namespace(host)
	if err != nil {
		return nil, err
	}
	state, err := listState(ns.Command, ns.Do)
	if err != nil {
		return nil, fmt.Errorf("list the state of %s: %w", host, err)
	}
	return state, nil
}

// listState is told how to run a program, and how to run code, where the state is.
func listState(command func(string, ...string) *exec.Cmd, do func(func() error) error) (HostState, error) {
	var state HostState
	for _, l := range listings {
		out, err := command(l[0], l[1:]...).Output() // what goes to stderr is advice
		if err != nil {
			return nil, fmt.Errorf("run %s: %w", strings.Join(l, " "), err)
		}
		state = append(state, Section{strings.Join(l, " "), settle(string(out))})
	}
	var sysctls strings.Builder
	err := do(func() error {
		for _, pattern := range sysctlFiles {
			paths, err := filepath.Glob("/proc/sys/net/" + pattern)
			if err != nil {
				return err
			}
			for _, p := range paths {
				if value, err := os.ReadFile(p); err == nil && filepath.Base(p) != "nf_conntrack_count" {
					fmt.Fprintf(&sysctls, "%s = %s\n", strings.TrimPrefix(p, "/proc/sys/net/"), strings.TrimSpace(string(value)))
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	programs, err := tcxPrograms(do)
	return append(state, Section{"sysctl net", sysctls.String()}, Section{"tcx", programs}), err
}

// tcxPrograms are the BPF programs at the interfaces, in their order. A kernel without tcx
// has none.
func tcxPrograms(do func(func() error) error) (string, error) {
	var list strings.Builder
	err := do(func() error {
		interfaces, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range interfaces {
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				found, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: at})
				if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENODEV) {
					continue
				}
				if err != nil {
					return fmt.Errorf("list the programs at %s: %w", i.Name, err)
				}
				for _, p := range found.Programs {
					fmt.Fprintf(&list, "%s %s: %s\n", i.Name, at, programName(p.ID))
				}
			}
		}
		return nil
	})
	return list.String(), err
}

func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return err.Error()
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return err.Error()
	}
	return info.Name
}

func settle(text string) string {
	for _, r := range restless {
		text = r.ReplaceAllString(text, "$2")
	}
	return text
}

// Diff says line by line what is in one state and not in the other: "-" was
// before, "+" is after. Equal states give "".
func (before HostState) Diff(after HostState) string {
	var b strings.Builder
	for i, s := range before {
		if d := diffLines(lines(s.Text), lines(after[i].Text)); d != "" {
			fmt.Fprintf(&b, "%s:\n%s", s.Title, d)
		}
	}
	return b.String()
}

func lines(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(s string) bool { return strings.TrimSpace(s) == "" })
}

// diffLines takes away what begins and ends both, then finds a longest common
// subsequence of the rest.
func diffLines(a, b []string) string {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out strings.Builder
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out.WriteString("  - " + strings.TrimSpace(a[i]) + "\n")
			i++
		default:
			out.WriteString("  + " + strings.TrimSpace(b[j]) + "\n")
			j++
		}
	}
	return out.String()
}
