package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/netns"
)

// Role is which of the two programs.
type Role string

// The programs.
const (
	Gateway Role = "gateway"
	Agent   Role = "agent"
)

// Ports of the programs' HTTP servers, on each node's loopback.
const (
	GatewayHTTP = "127.0.0.1:9871"
	AgentHTTP   = "127.0.0.1:9872"
)

// stopTimeout is how long a program may take to end after SIGTERM.
const stopTimeout = 30 * time.Second

type programKey struct {
	role Role
	node int
}

func (k programKey) String() string { return fmt.Sprintf("%s-%s", k.role, NodeName(k.node)) }

// Program is a process on a node.
type Program struct {
	Role Role
	Node int
	Pid  int
	Log  string // its output, also of earlier runs

	done chan struct{} // closed when it has ended; nil when another process started it
	err  error         // how it ended
}

// Start starts a program on node j. Further arguments come last on its command line.
func (l *Lab) Start(role Role, j int, args ...string) (*Program, error) {
	return l.start(role, j, nil, args)
}

// start has a program of the caller's make way for ours, which follows on its command
// line; it keeps its process.
func (l *Lab) start(role Role, j int, before, args []string) (*Program, error) {
	key := programKey{role, j}
	if l.Options.Binary == "" {
		return nil, fmt.Errorf("start %s: the lab was given no binary", key)
	}
	node, err := l.machine(NodeName(j))
	if err != nil {
		return nil, err
	}
	if p, err := l.Program(role, j); err == nil && p.Alive() {
		return nil, fmt.Errorf("start %s: it runs as pid %d", key, p.Pid)
	}
	p := &Program{Role: role, Node: j, Log: filepath.Join(l.logDir(), key.String()+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", key, err)
	}
	defer out.Close()
	line := slices.Concat(before, []string{l.Options.Binary}, l.arguments(key), args)
	cmd := node.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = out, out, append(os.Environ(), l.Options.Env...)
	if err := l.spawn(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", key, err)
	}
	p.Pid = cmd.Process.Pid
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	l.mu.Lock()
	l.programs[key] = p
	l.mu.Unlock()
	l.Options.Log.Info("program started", "program", key.String(), "pid", p.Pid)
	return p, os.WriteFile(filepath.Join(l.runDir(), key.String()), []byte(strconv.Itoa(p.Pid)), 0o644)
}

func (l *Lab) arguments(key programKey) []string {
	o := l.Options
	args := []string{string(key.role), "--node-name", NodeName(key.node), "--node-ip", l.NodeIP(key.node).String(),
		"--source", "dir:" + l.Manifests.Dir, "--state-dir", l.StateDir(key.role, key.node)}
	if o.Netfilter != "" {
		args = append(args, "--netfilter", o.Netfilter)
	}
	if key.role == Gateway || o.TwoNetworks {
		for _, v := range o.VIPs {
			args = append(args, "--vip", l.VIPFlag(v))
		}
	}
	if key.role == Agent {
		return slices.Concat(args, []string{"--http", AgentHTTP}, o.AgentArgs)
	}
	var peers []string
	for _, j := range o.GatewayNodes {
		peers = append(peers, l.NodeIP(j).String())
	}
	return slices.Concat(args, []string{"--http", GatewayHTTP, "--replicas", strconv.Itoa(len(peers)),
		"--join", strings.Join(peers, ","), "--gossip-key-file", l.gossipKeyFile()}, o.GatewayArgs)
}

// StartGateway starts node j's gateway replica.
func (l *Lab) StartGateway(j int, args ...string) (*Program, error) {
	return l.Start(Gateway, j, args...)
}

// StartAgent starts node j's agent.
func (l *Lab) StartAgent(j int, args ...string) (*Program, error) { return l.Start(Agent, j, args...) }

// StartAll starts every gateway and every agent.
func (l *Lab) StartAll() error {
	for _, j := range l.Options.GatewayNodes {
		if _, err := l.StartGateway(j); err != nil {
			return err
		}
	}
	for j := 1; j <= l.Options.Nodes; j++ {
		if _, err := l.StartAgent(j); err != nil {
			return err
		}
	}
	return nil
}

// Program gives a program that was started, whether it still runs or not.
func (l *Lab) Program(role Role, j int) (*Program, error) {
	key := programKey{role, j}
	l.mu.Lock()
	p := l.programs[key]
	l.mu.Unlock()
	if p != nil {
		return p, nil
	}
	// In a lab of another process, its number is in the lab's folder, and believed
	// only while it lives in the node's namespace.
	text, err := os.ReadFile(filepath.Join(l.runDir(), key.String()))
	if err != nil {
		return nil, fmt.Errorf("%s was not started", key)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return nil, fmt.Errorf("read pid of %s: %w", key, err)
	}
	pids, err := netns.Pids(l.fullName(NodeName(j)))
	if err != nil {
		return nil, err
	}
	if !slices.Contains(pids, pid) {
		return nil, fmt.Errorf("%s does not run", key)
	}
	return &Program{Role: role, Node: j, Pid: pid, Log: filepath.Join(l.logDir(), key.String()+".log")}, nil
}

// Alive says whether the process exists, stopped ones included.
func (p *Program) Alive() bool {
	if p.done == nil {
		return unix.Kill(p.Pid, 0) == nil
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Done is closed when a program started by this process has ended.
func (p *Program) Done() <-chan struct{} { return p.done }

// Signal sends a signal.
func (p *Program) Signal(sig syscall.Signal) error {
	if !p.Alive() {
		return fmt.Errorf("signal %s to %s: it has ended", sig, programKey{p.Role, p.Node})
	}
	if err := unix.Kill(p.Pid, sig); err != nil {
		return fmt.Errorf("signal %s to %s: %w", sig, programKey{p.Role, p.Node}, err)
	}
	return nil
}

// Kill sends SIGKILL and waits for the end.
func (p *Program) Kill() error { return errors.Join(p.Signal(unix.SIGKILL), p.wait()) }

// Stop sends SIGTERM and gives how the program ended: nil is exit code 0.
func (p *Program) Stop() error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	if err := p.wait(); err != nil {
		return errors.Join(err, p.Signal(unix.SIGKILL))
	}
	if p.err != nil {
		return fmt.Errorf("%s ended: %w", programKey{p.Role, p.Node}, p.err)
	}
	return nil
}

// Pause stops the process where it is (SIGSTOP).
func (p *Program) Pause() error { return p.Signal(unix.SIGSTOP) }

// Continue lets a paused process go on.
func (p *Program) Continue() error { return p.Signal(unix.SIGCONT) }

func (p *Program) wait() error {
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	poll := time.NewTicker(5 * time.Millisecond) // for a process that is not our child
	defer poll.Stop()
	for {
		select {
		case <-p.done:
			return nil
		case <-poll.C:
			if !p.Alive() {
				return nil
			}
		case <-late.C:
			return fmt.Errorf("%s has not ended %s after the signal", programKey{p.Role, p.Node}, stopTimeout)
		}
	}
}

// killPrograms kills all programs of the nodes given, of every node when none is.
func (l *Lab) killPrograms(nodes ...int) error {
	var live []*Program
	for j := 1; j <= l.Options.Nodes; j++ {
		if len(nodes) > 0 && !slices.Contains(nodes, j) {
			continue
		}
		for _, role := range []Role{Gateway, Agent} {
			if p, err := l.Program(role, j); err == nil && p.Alive() {
				live = append(live, p)
			}
		}
	}
	var errs []error
	for _, p := range live { // all at once, then wait
		if err := p.Signal(unix.SIGKILL); err != nil && p.Alive() {
			errs = append(errs, err)
		}
	}
	for _, p := range live {
		errs = append(errs, p.wait())
	}
	return errors.Join(errs...)
}

// LogTails is the end of every program's log.
func (l *Lab) LogTails(lines int) string {
	var b strings.Builder
	logs, _ := filepath.Glob(filepath.Join(l.logDir(), "*.log"))
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(path), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return b.String()
}

// spawner starts processes from one thread that lives as long as the lab: their
// parent-death signal fires when the thread that made them ends (prctl(2)), and
// threads that enter namespaces are thrown away all the time.
type spawner struct {
	work chan func()
	once sync.Once
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s *spawner) close() { s.once.Do(func() { close(s.work) }) }

// spawn starts a program that ends with this process, however it ends; from an
// attached lab it is to outlive the process, and gets a session of its own.
func (l *Lab) spawn(cmd *exec.Cmd) error {
	if l.spawner == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	}
	// A group of its own keeps the terminal's Ctrl-C from it: the lab decides.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	result := make(chan error, 1)
	l.spawner.work <- func() { result <- cmd.Start() }
	return <-result
}
