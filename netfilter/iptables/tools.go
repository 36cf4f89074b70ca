package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// Variant is which of the kernel's two rule sets iptables works on. A host may have
// rules in both, and packets then meet both.
type Variant string

// The variants, by the names of their programs.
const (
	NFT    Variant = "iptables-nft"
	Legacy Variant = "iptables-legacy"
)

func (v Variant) other() Variant {
	if v == NFT {
		return Legacy
	}
	return NFT
}

// lockWait is how long, in seconds, a change waits for the xtables lock.
const lockWait = "5"

// tool is the name of a program of the variant: iptables-nft-save, ip6tables-legacy.
func (v Variant) tool(ipv6 bool, suffix string) string {
	name := string(v)
	if ipv6 {
		name = "ip6" + strings.TrimPrefix(name, "ip")
	}
	return name + suffix
}

// ErrLocked is returned when another program keeps the xtables lock.
var ErrLocked = errors.New("the xtables lock is held by another program")

// ErrNotInstalled is returned when a program is missing.
var ErrNotInstalled = errors.New("not installed")

// process is a program under way. It is started on the caller's thread, which
// decides the network namespace.
type process struct {
	name        string
	cmd         *exec.Cmd
	input       string
	out, errOut bytes.Buffer
	startErr    error
}

func start(ctx context.Context, input, name string, args ...string) *process {
	p := &process{name: name, cmd: exec.CommandContext(ctx, name, args...), input: input}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = strings.NewReader(input), &p.out, &p.errOut
	p.cmd.Env = append(p.cmd.Environ(), "LC_ALL=C")
	p.startErr = p.cmd.Start()
	return p
}

func (p *process) wait() ([]byte, error) {
	if p.startErr != nil {
		if errors.Is(p.startErr, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s is %w: install the package %s, which has it", p.name, ErrNotInstalled, packageOf(p.name))
		}
		return nil, fmt.Errorf("start %s: %w", p.name, p.startErr)
	}
	if err := p.cmd.Wait(); err != nil {
		return p.out.Bytes(), fmt.Errorf("%s: %w", p.name, explain(err, p.errOut.String(), p.input))
	}
	return p.out.Bytes(), nil
}

func run(ctx context.Context, input, name string, args ...string) ([]byte, error) {
	return start(ctx, input, name, args...).wait()
}

func packageOf(program string) string {
	for _, p := range []string{"ipset", "nft"} {
		if program == p {
			return map[string]string{"ipset": "ipset", "nft": "nftables"}[p]
		}
	}
	if strings.Contains(program, "-legacy") {
		return "iptables (iptables-legacy on Fedora and Alpine)"
	}
	return "iptables (iptables-nft on Fedora)"
}

var (
	failedLine = regexp.MustCompile(`(?i)line:? (\d+)( failed)?`)
	extension  = regexp.MustCompile(`-[mj] ([A-Za-z0-9]+)`)
	noTable    = regexp.MustCompile("can't initialize (ip6?tables) table [`']([a-z]+)'")
	noModule   = regexp.MustCompile(`Extension (\S+) revision \d+ not supported`)
)

// explain adds to a program's message the line it stopped at and the cure.
func explain(err error, message, input string) error {
	message = strings.Join(strings.Fields(message), " ")
	if message != "" {
		err = fmt.Errorf("%w: %s", err, message)
	}
	if strings.Contains(message, "xtables lock") {
		return fmt.Errorf("%w for more than %s s (see `fuser /run/xtables.lock`; in a container the host's /run/xtables.lock must be mounted): %w", ErrLocked, lockWait, err)
	}
	if m := noTable.FindStringSubmatch(message); m != nil {
		module := strings.TrimSuffix(m[1], "s") + "_" + m[2]
		return fmt.Errorf("the kernel has no %s table %s: load module %s (modprobe %s), or use nftables: %w", m[1], m[2], module, module, err)
	}
	if m := noModule.FindStringSubmatch(message); m != nil {
		return fmt.Errorf("the kernel lacks %s: load module xt_%s (modprobe xt_%s), or use nftables: %w", m[1], m[1], m[1], err)
	}
	if strings.Contains(message, "is incompatible, use 'nft' tool") {
		return fmt.Errorf("a table of iptables-nft has rules that only nft can read: move them to a table of their own, or use nftables: %w", err)
	}
	if strings.Contains(message, "Operation not permitted") || strings.Contains(message, "Permission denied") || strings.Contains(message, "you must be root") {
		return fmt.Errorf("CAP_NET_ADMIN and CAP_NET_RAW are needed: %w", err)
	}
	if strings.Contains(message, "Kernel support protocol versions") || strings.Contains(message, "Cannot open session to kernel") {
		return fmt.Errorf("the kernel lacks ipset: load module ip_set (modprobe ip_set), or use nftables: %w", err)
	}
	if m := failedLine.FindStringSubmatch(message); m != nil {
		n, _ := strconv.Atoi(m[1])
		if lines := strings.Split(input, "\n"); n >= 1 && n <= len(lines) {
			err = fmt.Errorf("%w: at %q%s", err, lines[n-1], needs(lines[n-1]))
		}
	}
	return err
}

// needs names the modules of the extensions in a refused line, since neither
// variant says which of them the kernel lacks.
func needs(line string) string {
	var modules []string
	if f := strings.Fields(line); len(f) > 2 && f[0] == "create" {
		modules = append(modules, "ip_set_"+strings.NewReplacer(":", "_", ",", "").Replace(f[2]))
	}
	for _, m := range extension.FindAllStringSubmatch(line, -1) {
		switch m[1] {
		case "DROP", "RETURN", "SALLY":
		default:
			modules = append(modules, "xt_"+m[1])
		}
	}
	if len(modules) == 0 {
		return ""
	}
	return "; it needs the kernel modules " + strings.Join(modules, ", ")
}
