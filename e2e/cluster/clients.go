package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Kubectl runs kubectl as administrator, with the text as its input.
func (a *APIServer) Kubectl(ctx context.Context, input string, args ...string) (string, error) {
	return a.tool(ctx, input, "kubectl", args...)
}

// Helm runs helm as administrator.
func (a *APIServer) Helm(ctx context.Context, args ...string) (string, error) {
	return a.tool(ctx, "", "helm", args...)
}

// Tool is the path of one of the programs, such as helm.
func (a *APIServer) Tool(name string) string { return filepath.Join(a.programs, name) }

// tool gives what a program says on its output; what it says otherwise is in the error.
func (a *APIServer) tool(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := a.place.command(a.Tool(name), args...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &said
	cmd.Env = toolEnv(a.Kubeconfig, filepath.Join(a.Dir, name))
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// AwaitReady waits until the API server says that it is ready, or has ended.
func (a *APIServer) AwaitReady(ctx context.Context) error {
	pool := x509.NewCertPool()
	pool.AddCert(a.ca.cert)
	transport := &http.Transport{DialContext: a.place.dial, TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 2 * time.Second}
	ask := func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL+"/readyz", nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+a.admin.token)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if ended := errors.Join(a.daemons[Etcd].ended(), a.daemons[KubeAPIServer].ended()); ended != nil {
			return ended
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the API server: %w (last: %w), see %s", ctx.Err(), err, a.daemons[KubeAPIServer].log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Shell is a program that finds kubectl and helm in its PATH, and in them the cluster, as
// on the machine of an administrator.
func (a *APIServer) Shell(name string, args ...string) *exec.Cmd {
	cmd := a.place.command(name, args...)
	cmd.Env = append(toolEnv(a.Kubeconfig, filepath.Join(a.Dir, "shell")), "PATH="+a.programs+":"+os.Getenv("PATH"))
	return cmd
}
