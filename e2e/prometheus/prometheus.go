// Package prometheus runs a real Prometheus for a test, so that metrics, alerts and a
// dashboard are judged by who reads them.
package prometheus

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// address of its HTTP server, where it runs.
const address = "127.0.0.1:9090"

// Fetch makes an HTTP request from where it runs.
type Fetch func(ctx context.Context, url string) (code int, body []byte, err error)

// Options of one.
type Options struct {
	// Command makes its program ready to be started, where it is to be.
	Command func(name string, args ...string) *exec.Cmd
	Fetch   Fetch
	// Scrape is what it scrapes.
	Scrape ScrapeConfig
	// Rules are files of alerts.
	Rules []string
	// Every so often it scrapes, and judges the rules.
	Every time.Duration
}

// ScrapeConfig is one of prometheus.yml.
type ScrapeConfig map[string]any

// Static scrapes targets, as ADDRESS:PORT, under one job.
func Static(job string, targets []string) ScrapeConfig {
	return ScrapeConfig{"job_name": job, "static_configs": []any{map[string]any{"targets": targets}}}
}

// Server is one that runs.
type Server struct {
	fetch Fetch
	ended chan struct{} // closed when it has
	noise bytes.Buffer  // what it wrote; to be read when it has ended
}

// Need skips, saying so, where a program of Prometheus is not installed.
func Need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("needs %s: install Debian's package prometheus, without its recommendations", program)
	}
	return path
}

// Test gives the test a Prometheus that ends with it.
func Test(t testing.TB, o Options) *Server {
	t.Helper()
	path, dir := Need(t, "prometheus"), t.TempDir()
	file, err := configure(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{fetch: o.Fetch, ended: make(chan struct{})}
	cmd := o.Command(path, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = &s.noise, &s.noise
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is the test's
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	go func() {
		defer close(s.ended)
		_ = cmd.Wait() // its log says why it ended
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-s.ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-s.ended
			t.Errorf("%s did not end by itself", path)
		}
		if t.Failed() {
			t.Logf("%s wrote: %s", path, s.noise.Bytes())
		}
	})
	return s
}

func configure(dir string, o Options) (file string, err error) {
	var rules []string
	for _, r := range o.Rules {
		if r, err = filepath.Abs(r); err != nil {
			return "", fmt.Errorf("rules: %w", err)
		}
		rules = append(rules, r)
	}
	text, err := yaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": o.Every.String(), "scrape_timeout": o.Every.String(), "evaluation_interval": o.Every.String()},
		"rule_files":     rules,
		"scrape_configs": []ScrapeConfig{o.Scrape},
	})
	if err != nil {
		return "", fmt.Errorf("configure: %w", err)
	}
	file = filepath.Join(dir, "prometheus.yml")
	return file, os.WriteFile(file, text, 0o600)
}
