package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// APIServer is a Kubernetes API server and its etcd, without controllers and nodes:
// what is put in is kept, watched and guarded by roles, and nothing acts on it. It is
// ready within seconds.
type APIServer struct {
	URL        string // https
	Kubeconfig string // file, of an administrator: kubectl, Helm and client-go read it
	CAFile     string // certificate of who signed the server's
	// AuditLog is a file of one audit.k8s.io/v1 Event in each line: every request of a
	// service account outside of kube-system.
	AuditLog string
	Dir      string // certificates, data and logs; removed with the server

	programs string
	ca       *authority
	admin    user
	users    []user
	daemons  map[string]*daemon
	place    place
}

const kubeconfigFile = "admin.kubeconfig"

// The control plane's programs, as Kill and Start know them.
const (
	Etcd              = "etcd"
	KubeAPIServer     = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// StartAPIServer starts one on loopback, with programs from the folder that Programs
// gives. The caller closes it.
func StartAPIServer(ctx context.Context, programs string) (*APIServer, error) {
	dir, err := os.MkdirTemp("", "sallyport-apiserver-")
	if err != nil {
		return nil, fmt.Errorf("make the API server's folder: %w", err)
	}
	a := &APIServer{Dir: dir, programs: programs, daemons: map[string]*daemon{}, place: place{
		address: "127.0.0.1", command: exec.Command, dial: new(net.Dialer).DialContext,
		options: alone,
	}}
	if err = freePorts(&a.place.port, &a.place.etcdPort, &a.place.etcdPeer); err == nil {
		err = a.up(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// TestAPIServer gives the test an API server that ends with it. It skips where
// ProgramsEnv is not set: building the programs takes minutes, and `make e2e` does it.
func TestAPIServer(t testing.TB) *APIServer {
	t.Helper()
	if os.Getenv(ProgramsEnv) == "" {
		t.Skipf("needs the Kubernetes programs: set %s to what `go run ./e2e/cluster/cmd/cluster bin` prints", ProgramsEnv)
	}
	programs, err := Programs(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	a, err := StartAPIServer(t.Context(), programs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("end the API server: %v", err)
		}
	})
	return a
}

// up starts etcd and the API server, and waits for it.
func (a *APIServer) up(ctx context.Context) error {
	p := a.place
	a.URL = fmt.Sprintf("https://%s:%d", p.address, p.port)
	a.Kubeconfig, a.AuditLog = filepath.Join(a.Dir, kubeconfigFile), filepath.Join(a.Dir, "audit.log")
	var err error
	if a.ca, err = newAuthority(filepath.Join(a.Dir, "pki")); err != nil {
		return err
	}
	a.CAFile = a.ca.file("ca.crt")
	a.admin = newUser("admin", "system:masters")
	a.users = append(a.users, a.admin)
	err = errors.Join(
		a.ca.server("apiserver", []string{p.address, serviceIP, "127.0.0.1"}, "kubernetes", "kubernetes.default", "kubernetes.default.svc"),
		a.ca.client("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
		a.ca.client("front-proxy", "front-proxy-client"),
		tokenFile(a.ca.file("tokens.csv"), a.users),
		a.admin.kubeconfig(a.Kubeconfig, a.URL, a.CAFile),
		os.WriteFile(filepath.Join(a.Dir, "audit.yaml"), []byte(auditPolicy), 0o644),
	)
	if err != nil {
		return err
	}
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", p.etcdPort), fmt.Sprintf("http://127.0.0.1:%d", p.etcdPeer)
	err = a.run(Etcd, "--data-dir", filepath.Join(a.Dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	if err == nil {
		err = a.run(KubeAPIServer, append(a.arguments(client), p.options...)...)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return a.AwaitReady(ctx)
}

// run starts a program of the control plane, for Kill and Start to know.
func (a *APIServer) run(name string, args ...string) error {
	a.daemons[name] = &daemon{name: name, log: filepath.Join(a.Dir, name+".log"), command: func() *exec.Cmd {
		return a.place.command(filepath.Join(a.programs, name), args...)
	}}
	return a.daemons[name].start()
}

// Kill ends a program of the control plane at once.
func (a *APIServer) Kill(program string) error {
	if d := a.daemons[program]; d != nil {
		return d.kill()
	}
	return fmt.Errorf("kill %s: it is not of this control plane", program)
}

// Start starts a program that was killed, as it was; AwaitReady tells when it answers.
func (a *APIServer) Start(program string) error {
	if d := a.daemons[program]; d != nil {
		return d.start()
	}
	return fmt.Errorf("start %s: it is not of this control plane", program)
}

// Close ends the programs and removes their folder.
func (a *APIServer) Close() error {
	return errors.Join(a.killAll(), os.RemoveAll(a.Dir))
}

func (a *APIServer) killAll() error {
	var errs []error
	for _, name := range []string{Scheduler, ControllerManager, KubeAPIServer, Etcd} {
		if d := a.daemons[name]; d != nil {
			errs = append(errs, d.kill())
		}
	}
	return errors.Join(errs...)
}

// freePorts finds ports that nobody listens on. Somebody else may take one before it
// is used: then the program that wanted it ends, and its log says so.
func freePorts(ports ...*int) error {
	for _, p := range ports {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close()
		*p = l.Addr().(*net.TCPAddr).Port
	}
	return nil
}
