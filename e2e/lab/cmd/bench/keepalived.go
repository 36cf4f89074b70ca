package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

const keepalivedNote = "keepalived is Debian's package with VRRP version 3, adverts every 50 ms, priorities 254, 170 and 86, all else as\n" +
	"it comes; its traffic takes the design's packet path as made by hand: tunnel to the VIP, SNAT on every node."

const keepalivedConf = `global_defs {
    router_id %s
}
vrrp_instance egress {
    version 3
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority %d
    advert_int 0.05
    virtual_ipaddress {
        %s/32 dev eth0
    }
}
`

func haveKeepalived() bool { _, err := exec.LookPath("keepalived"); return err == nil }

// keepalived holds the VIP of the packet path that is made by hand. The first node
// has the highest priority.
func keepalived(w *world) (_ int, down func() error, err error) {
	var daemons []*exec.Cmd
	down = func() error {
		var errs []error
		for _, d := range daemons {
			// Its VRRP process is a child in the same process group.
			errs = append(errs, unix.Kill(-d.Process.Pid, unix.SIGKILL))
			_ = d.Wait()
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, down())
		}
	}()
	var pods []string
	for _, p := range w.Pods() {
		pods = append(pods, p.Name)
	}
	path, err := w.MakeByHand(1, pods...)
	if err != nil {
		return 0, nil, err
	}
	if err := path.Release(1); err != nil {
		return 0, nil, err
	}
	vip := w.Options.VIPs[0]
	for j := 1; j <= w.Options.Nodes; j++ {
		// The address decides who answers; the hand-made fence is kept open.
		if _, err := w.Exec(lab.NodeName(j), "nft", "add element arp hand held { "+vip.String()+" }"); err != nil {
			return 0, nil, err
		}
		file := filepath.Join(w.Options.Dir, "keepalived-"+lab.NodeName(j))
		conf := fmt.Sprintf(keepalivedConf, lab.NodeName(j), 254-84*(j-1), vip)
		if err := os.WriteFile(file+".conf", []byte(conf), 0o644); err != nil {
			return 0, nil, fmt.Errorf("configure keepalived: %w", err)
		}
		ns, err := w.Namespace(lab.NodeName(j))
		if err != nil {
			return 0, nil, err
		}
		d := ns.Command("keepalived", "--dont-fork", "--vrrp", "--use-file", file+".conf",
			"--pid", file+".pid", "--vrrp_pid", file+".vrrp.pid", "--log-console")
		d.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
		if d.Stderr, err = os.Create(file + ".log"); err != nil {
			return 0, nil, fmt.Errorf("log of keepalived: %w", err)
		}
		d.Stdout = d.Stderr
		if err := d.Start(); err != nil {
			return 0, nil, fmt.Errorf("start keepalived: %w", err)
		}
		daemons = append(daemons, d)
	}
	holder := 0
	err = lab.Await(patience, func() error {
		held, err := w.Holders(vip)
		if err != nil || len(held) != 1 || held[0] != 1 {
			return fmt.Errorf("keepalived: the VIP is on %v, want it on the first node: %v", held, err)
		}
		holder = held[0]
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	for _, p := range pods {
		if err := w.seen(p); err != nil {
			return 0, nil, err
		}
	}
	return holder, down, nil
}
