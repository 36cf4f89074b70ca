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
	errs := []error{c.Lab.WriteReport(dir)}
	write := func(file, text string, err error) {
		if err != nil {
			text += fmt.Sprintf("\n%v\n", err)
		}
		path := filepath.Join(dir, file)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	for j := 1; j <= c.Lab.Options.Nodes; j++ {
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
