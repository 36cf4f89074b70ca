package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// user is who holds a token of the API server.
type user struct{ name, token, group string }

func newUser(name, group string) user { return user{name, rand.Text(), group} }

// tokenFile is what the API server reads: token, name, uid and groups
// (kubernetes.io/docs/reference/access-authn-authz/authentication, static tokens).
func tokenFile(path string, users []user) error {
	var b strings.Builder
	for _, u := range users {
		fmt.Fprintf(&b, "%s,%s,%s,%q\n", u.token, u.name, u.name, u.group)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write the users of the API server: %w", err)
	}
	return nil
}

// kubeconfig writes the file with which the user talks to the server.
func (u user) kubeconfig(path, server, caFile string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: cluster, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: user, user: {token: %q}}]
contexts: [{name: cluster, context: {cluster: cluster, user: user}}]
current-context: cluster
`, server, caFile, u.token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig of %s: %w", u.name, err)
	}
	return nil
}

// Account writes the kubeconfig of a service account.
func (a *APIServer) Account(ctx context.Context, namespace, name, file string) error {
	token, err := a.Kubectl(ctx, "", "create", "token", name, "-n", namespace, "--duration", "24h")
	if err != nil {
		return err
	}
	return user{name: name, token: strings.TrimSpace(token)}.kubeconfig(file, a.URL, a.CAFile)
}

// account writes it into the cluster's folder.
func (c *Cluster) account(ctx context.Context, namespace, name string) error {
	return c.API.Account(ctx, namespace, name, filepath.Join(c.dir, name+".kubeconfig"))
}
