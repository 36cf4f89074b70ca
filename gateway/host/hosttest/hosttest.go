// Package hosttest has what benchmarks of the programs on a host share.
package hosttest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/gateway"
)

// Views is a source whose views are sent to it.
type Views chan gateway.Snapshot

// Run delivers until it is closed.
func (v Views) Run(_ context.Context, deliver func(gateway.Snapshot)) error {
	for s := range v {
		deliver(s)
	}
	return nil
}

// Host is a network namespace with an interface that has the address; it ends with the
// test, which is skipped without root. The prefix is of its name.
func Host(tb testing.TB, prefix string, addr netip.Prefix) *netns.NS {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root for a network namespace")
	}
	ns, err := netns.New(fmt.Sprintf("%s-%d-0-bench", prefix, os.Getpid()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := ns.Close(); err != nil {
			tb.Error(err)
		}
	})
	if err := ns.Do(func() error {
		out, err := exec.Command("sh", "-ec", `ip link set lo up; ip link add eth0 type veth peer name peer0
ip link set eth0 up; ip link set peer0 up; ip addr add `+addr.String()+` dev eth0`).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	return ns
}
