package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

const keepalivedNote = "keepalived is Debian's package with VRRP version 3, adverts every 50 ms, priorities 254, 170 and 86, all else as\n" +
	"it comes; its traffic takes the design's packet path as made by hand: tunnel to the VIP, SNAT on every node."

const keepalivedConf = `global_defs {
    router_id %s
%s}
vrrp_instance egress {
    version 3
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority %d
    advert_int %s
%s    virtual_ipaddress {
        %s/32 dev eth0
    }
}
`

// realTime is what keepalived's makers have for adverts this short.
const realTime = `    vrrp_rt_priority 50
    vrrp_rlimit_rttime 2000000
`

func have(program string) bool { _, err := exec.LookPath(program); return err == nil }

func haveKeepalived() bool { return have("keepalived") }

// vrrp holds the VIP of the packet path that is made by hand by keepalived on each node
// of the gateways; the first has the highest priority.
type vrrp struct {
	advert    string // seconds between two
	realTime  bool
	replicate bool // connections, by conntrackd

	w       *world
	daemons map[daemon]*exec.Cmd
}

type daemon struct {
	program string
	node    int
}

// keepalived is the contender of the section failover.
func keepalived(w *world) (_ int, down func() error, err error) {
	v := &vrrp{advert: "0.05"}
	err = v.raise(w)
	if err != nil {
		return 0, nil, errors.Join(err, v.down())
	}
	return w.Options.GatewayNodes[0], v.down, nil
}

// raise lets traffic of every node's pod flow, and returns when the first node holds.
func (v *vrrp) raise(w *world) error {
	v.w, v.daemons = w, map[daemon]*exec.Cmd{}
	var pods []string
	for _, p := range w.Pods() {
		// What conntrackd replicates has no zone, and without one a gateway's own pods cannot
		// leave by it.
		if !v.replicate || !slices.Contains(w.Options.GatewayNodes, p.Node) {
			pods = append(pods, p.Name)
		}
	}
	first := w.Options.GatewayNodes[0]
	path, err := w.MakeByHand(first, pods...)
	if err == nil {
		err = path.Release(first)
	}
	if err != nil {
		return err
	}
	vip := w.Options.VIPs[0]
	for j := 1; j <= w.Options.Nodes; j++ {
		// The address decides who answers; the hand-made fence is kept open.
		if _, err := w.Exec(lab.NodeName(j), "nft", "add element arp hand held { "+vip.String()+" }"); err != nil {
			return err
		}
		if !v.replicate {
			continue
		}
		if _, err := w.Exec(lab.NodeName(j), "nft", "flush chain ip hand early"); err != nil {
			return err
		}
	}
	for n, j := range w.Options.GatewayNodes {
		if v.replicate {
			if err := v.startConntrackd(j); err != nil {
				return err
			}
		}
		if err := v.configure(j, 254-84*n); err != nil {
			return err
		}
		if err := v.start(j); err != nil {
			return err
		}
	}
	if err := v.whole(); err != nil {
		return err
	}
	for _, p := range pods {
		if err := w.seen(p); err != nil {
			return err
		}
	}
	return nil
}

// file is beside the logs of the lab's own programs, which are shown with what went wrong.
func (v *vrrp) file(j int, kind string) string {
	return filepath.Join(v.w.Options.Dir, "logs", lab.NodeName(j)+"-"+kind)
}

func (v *vrrp) configure(j, priority int) error {
	global, notify := "", ""
	if v.realTime {
		global = realTime
	}
	if v.replicate {
		global += "    script_user root\n"
		notify = fmt.Sprintf("    notify_master %q\n    notify_backup %q\n", v.file(j, "notify")+" primary", v.file(j, "notify")+" backup")
	}
	text := fmt.Sprintf(keepalivedConf, lab.NodeName(j), global, priority, v.advert, notify, v.w.Options.VIPs[0])
	if err := os.WriteFile(v.file(j, "keepalived.conf"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("configure keepalived: %w", err)
	}
	return nil
}

// start starts keepalived on a node.
func (v *vrrp) start(j int) error {
	file := v.file(j, "keepalived")
	// It believes the file of one that was killed as long as nobody has waited for that one.
	for _, kind := range []string{".pid", ".vrrp.pid"} {
		_ = os.Remove(file + kind)
	}
	return v.run(j, "keepalived", "--dont-fork", "--vrrp", "--use-file", file+".conf",
		"--pid", file+".pid", "--vrrp_pid", file+".vrrp.pid", "--log-console")
}

// run starts a program on a node, in a process group of its own.
func (v *vrrp) run(j int, program string, args ...string) error {
	ns, err := v.w.Namespace(lab.NodeName(j))
	if err != nil {
		return err
	}
	d := ns.Command(program, args...)
	d.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	out, err := os.OpenFile(v.file(j, program+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("log of %s: %w", program, err)
	}
	defer out.Close()
	d.Stdout, d.Stderr = out, out
	if err := d.Start(); err != nil {
		return fmt.Errorf("start %s on n%d: %w", program, j, err)
	}
	v.daemons[daemon{program, j}] = d
	return nil
}

// signal reaches keepalived's VRRP process, too: a child in the same process group.
func (v *vrrp) signal(j int, sig unix.Signal) error {
	if err := unix.Kill(-v.daemons[daemon{"keepalived", j}].Process.Pid, sig); err != nil {
		return fmt.Errorf("signal %s to keepalived on n%d: %w", sig, j, err)
	}
	return nil
}

// end takes a program from a node by force, if it runs there.
func (v *vrrp) end(program string, j int) error {
	d := v.daemons[daemon{program, j}]
	if d == nil {
		return nil
	}
	delete(v.daemons, daemon{program, j})
	err := unix.Kill(-d.Process.Pid, unix.SIGKILL)
	_ = d.Wait() // how it ended is no news
	if err != nil {
		return fmt.Errorf("kill %s on n%d: %w", program, j, err)
	}
	return nil
}

// stop has keepalived say farewell and waits until it has ended.
func (v *vrrp) stop(j int) error {
	d := v.daemons[daemon{"keepalived", j}]
	delete(v.daemons, daemon{"keepalived", j})
	if err := unix.Kill(d.Process.Pid, unix.SIGTERM); err != nil {
		return fmt.Errorf("stop keepalived on n%d: %w", j, err)
	}
	_ = d.Wait()
	return nil
}

func (v *vrrp) down() error {
	var errs []error
	for d := range v.daemons {
		errs = append(errs, v.end(d.program, d.node))
	}
	return errors.Join(errs...)
}

// whole waits until the first node holds, and nobody else.
func (v *vrrp) whole() error {
	vip, first := v.w.Options.VIPs[0], v.w.Options.GatewayNodes[0]
	return lab.Await(patience, func() error {
		held, err := v.w.Holders(vip)
		if err != nil || len(held) != 1 || held[0] != first {
			return fmt.Errorf("keepalived: the VIP is on %v, want it on n%d: %v", held, first, err)
		}
		return nil
	})
}

func (v *vrrp) holder() (int, error) { return v.w.Options.GatewayNodes[0], nil }
