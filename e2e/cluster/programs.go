package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ProgramsEnv names the folder of the built programs to the tests that run them; where
// it is not set they skip, or build.
const ProgramsEnv = "SALLYPORT_CLUSTER_BIN"

const modulePath = "github.com/sallyport/sallyport"

// names that the multi-call program is called by.
var names = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl", "etcd"}

// Programs gives the folder with the Kubernetes programs, etcd and helm. They are
// built once for each version of the module that names them; that takes some
// minutes, whose progress goes to the writer. A build that was broken off leaves
// nothing that a later one would take for whole.
func Programs(ctx context.Context, progress io.Writer) (string, error) {
	if dir := os.Getenv(ProgramsEnv); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, "kube-apiserver")); err != nil {
			return "", fmt.Errorf("%s: %w (give the folder that `cluster bin` prints, or nothing)", ProgramsEnv, err)
		}
		return dir, nil
	}
	module, err := sourceDir("programs")
	if err != nil {
		return "", err
	}
	sum, err := hashTree(module, runtime.Version(), runtime.GOARCH)
	if err != nil {
		return "", err
	}
	return cached("cluster-"+sum, func(dir string) error {
		_, _ = fmt.Fprintln(progress, "building the Kubernetes programs, once: about 6 minutes on 2 cores")
		return build(ctx, module, dir, progress)
	})
}

func build(ctx context.Context, module, dir string, progress io.Writer) error {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	list.Dir = module
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("find the version of Kubernetes in %s: %w", module, err)
	}
	version := strings.TrimSpace(string(out))
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	ldflags := "-s -w"
	for name, value := range map[string]string{"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"} {
		ldflags += " -X k8s.io/component-base/version." + name + "=" + value
	}
	for program, pkg := range map[string]string{"kubernetes": "./kubernetes", "helm": "helm.sh/helm/v3/cmd/helm"} {
		w := &counter{w: progress, what: program}
		cmd := exec.CommandContext(ctx, "go", "build", "-v", "-trimpath", "-ldflags", ldflags, "-o", filepath.Join(dir, program), pkg)
		cmd.Dir, cmd.Env, cmd.Stderr = module, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off"), w
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", program, err, w.tail())
		}
	}
	for _, name := range names {
		if err := os.Symlink("kubernetes", filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("name the program %s: %w", name, err)
		}
	}
	return nil
}

// counter turns the compiler's list of packages into a sign of life now and then.
type counter struct {
	w    io.Writer
	what string
	n    int
	said bytes.Buffer
}

func (c *counter) Write(p []byte) (int, error) {
	c.said.Write(p)
	for range bytes.Count(p, []byte("\n")) {
		if c.n++; c.n%250 == 0 {
			_, _ = fmt.Fprintf(c.w, "%s: %d packages\n", c.what, c.n)
		}
	}
	return len(p), nil
}

func (c *counter) tail() string {
	lines := strings.Split(strings.TrimSpace(c.said.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// cached gives the folder of the name in the user's cache, made by the function if it
// is not there. Of two processes that want it, one makes it and the other waits.
func cached(name string, fill func(dir string) error) (_ string, err error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the folder for what is built once: %w (set HOME or XDG_CACHE_HOME)", err)
	}
	dir := filepath.Join(base, "sallyport", name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("make the folder for what is built once: %w", err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", fmt.Errorf("lock %s: %w", dir, err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", dir, err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	part := dir + ".part"
	defer func() { err = errors.Join(err, os.RemoveAll(part)) }()
	if err := errors.Join(os.RemoveAll(part), os.Mkdir(part, 0o755)); err != nil {
		return "", fmt.Errorf("make %s: %w", part, err)
	}
	if err := fill(part); err != nil {
		return "", err
	}
	return dir, os.Rename(part, dir)
}

// sourceDir is a folder of this package in the working tree: modules inside of
// modules are not to be embedded.
func sourceDir(elem ...string) (string, error) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", modulePath+"/e2e/cluster").Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of the cluster: %w (run it inside of the repository)", err)
	}
	return filepath.Join(append([]string{strings.TrimSpace(string(out))}, elem...)...), nil
}

// hashTree is a short name for the contents of all files of a folder, and more.
func hashTree(dir string, more ...string) (string, error) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		more = append(more, path[len(dir):], string(text))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read %s: %w", dir, err)
	}
	return hash(more), nil
}

func hash(parts []string) string {
	sum := sha256.New()
	for _, part := range parts {
		_, _ = fmt.Fprintf(sum, "%d %s", len(part), part)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))[:12]
}
