package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sallyport/sallyport/e2e/lab"
)

// place is where the programs of the control plane run.
type place struct {
	address            string
	port               int
	etcdPort, etcdPeer int
	command            func(name string, args ...string) *exec.Cmd
	dial               func(ctx context.Context, network, address string) (net.Conn, error)
	options            []string // further ones of the API server
}

// alone are options of an API server without controllers: pods need no service account,
// because nobody makes one.
var alone = []string{"--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none"}

// ControlPlane is the short name of the host of a lab that runs the API server.
const ControlPlane = "cp"

var controlPlaneAddr = netip.MustParseAddr("192.0.2.252")

// placeOn adds that host to the lab.
func placeOn(l *lab.Lab) (place, error) {
	if err := l.AddHost(ControlPlane, controlPlaneAddr); err != nil {
		return place{}, err
	}
	ns, err := l.Namespace(ControlPlane)
	if err != nil {
		return place{}, err
	}
	return place{
		address: controlPlaneAddr.String(), port: 6443, etcdPort: 2379, etcdPeer: 2380, command: ns.Command,
		dial: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = ns.Do(func() error {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}, nil
}

// StartAPIServerOn starts one on a host of its own in the lab, where the lab's nodes reach
// it. The caller closes it before the lab.
func StartAPIServerOn(ctx context.Context, l *lab.Lab, programs string) (*APIServer, error) {
	p, err := placeOn(l)
	if err != nil {
		return nil, err
	}
	p.options = alone
	a := &APIServer{Dir: filepath.Join(l.Options.Dir, "plane"), programs: programs, daemons: map[string]*daemon{}, place: p}
	if err = os.MkdirAll(a.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the API server's folder: %w", err)
	}
	if err := a.up(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// Dial reaches the API server from wherever this process is.
func (a *APIServer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return a.place.dial(ctx, network, address)
}
