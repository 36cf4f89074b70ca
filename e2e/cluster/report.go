package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// listings of a node's kernel, each to a file; counters and ages included.
var listings = map[string]string{
	"nft":         "nft -a list ruleset",
	"iptables":    "iptables-nft-save -c; iptables-legacy-save -c 2>/dev/null",
	"ipset":       "ipset list",
	"rules":       "ip rule; ip -6 rule",
	"routes":      "ip route show table all; ip -6 route show table all",
	"links":       "ip -d -s link; ip addr; ip neigh",
	"connections": "conntrack -L 2>&1",
	"sockets":     "ss -tunap",
}

// objects that kubectl describes.
var objects = map[string][]string{
	"pods":    {"get", "pods", "-A", "-o", "wide"},
	"nodes":   {"get", "nodes", "-o", "wide"},
	"events":  {"get", "events", "-A", "--sort-by=.lastTimestamp"},
	"routes":  {"get", "egressroutes", "-o", "yaml"},
	"all":     {"get", "pods,daemonsets,statefulsets,jobs,deployments", "-A", "-o", "yaml"},
	"details": {"describe", "pods", "-A"},
}

// WriteReport writes what one wants to see when a test has failed into a folder: the
// kernel of every node, also of one without power; all programs' and pods' logs; what
// the API server knows. What cannot be had is named in its place.
func (c *Cluster) WriteReport(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var errs []error
	write := func(file, text string, err error) {
		if err != nil {
			text += fmt.Sprintf("\n%v\n", err)
		}
		path := filepath.Join(dir, file)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	for j := 1; j <= c.Lab.Options.Nodes; j++ {
		for name, script := range listings {
			out, err := c.Lab.Exec(lab.NodeName(j), "sh", "-c", script)
			write(filepath.Join(lab.NodeName(j), name+".txt"), out, err)
		}
		logs, err := filepath.Glob(filepath.Join(c.nodeDir(j), "*.log"))
		errs = append(errs, err, copyLogs(logs, filepath.Join(dir, lab.NodeName(j))))
		errs = append(errs, os.CopyFS(filepath.Join(dir, lab.NodeName(j), "pods"), os.DirFS(filepath.Join(c.nodeDir(j), "var-log/pods"))))
	}
	if c.API != nil {
		logs, err := filepath.Glob(filepath.Join(c.API.Dir, "*.log"))
		errs = append(errs, err, copyLogs(logs, filepath.Join(dir, ControlPlane)))
		for name, args := range objects {
			out, err := c.API.Kubectl(ctx, "", append([]string{"--request-timeout=10s"}, args...)...)
			write(filepath.Join(ControlPlane, name+".txt"), out, err)
		}
	}
	refused, err := c.Lab.Partner.Refused()
	text := fmt.Sprintf("seen: %v\nrefused:\n", c.Lab.Partner.Seen(""))
	for _, r := range refused {
		text += fmt.Sprintf("%+v\n", r)
	}
	write("partner.txt", text, err)
	return errors.Join(errs...)
}

func copyLogs(paths []string, dir string) error {
	errs := []error{os.MkdirAll(dir, 0o755)}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		errs = append(errs, err, os.WriteFile(filepath.Join(dir, filepath.Base(path)), text, 0o644))
	}
	return errors.Join(errs...)
}
