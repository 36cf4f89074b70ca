package e2e

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/guide"
	"github.com/sallyport/sallyport/e2e/lab"
)

// The reader has a shell in the repository, as root.
func TestGettingStartedDoesWhatItSays(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	r := guide.Reader{
		Dir: "..", Env: []string{"LAB_PREFIX=" + cmp.Or(os.Getenv("E2E_PREFIX"), "spe")}, Patience: 5 * time.Minute, Tell: t.Logf,
		Command: func(_, name string, args ...string) (*exec.Cmd, error) { return exec.Command(name, args...), nil },
	}
	if err := r.Read(t.Context(), "../docs/getting-started.md"); err != nil {
		t.Fatal(err)
	}
}

// The README's three hosts are the lab's, on which nothing of ours runs so far. All share
// one disk: each has a state of its own.
func TestTheReadmeDoesWhatItSays(t *testing.T) {
	w := newWorld(t, lab.Options{PodsPerNode: 1})
	dir, state := t.TempDir(), t.TempDir()
	r := guide.Reader{
		Dir: dir, Section: "On three hosts", Patience: time.Minute, Tell: t.Logf,
		Command: func(host, name string, args ...string) (*exec.Cmd, error) {
			if host == "holder" {
				host = lab.NodeName(w.holder())
			}
			ns, err := w.Namespace(host)
			if err != nil {
				return nil, err
			}
			cmd := ns.Command(name, args...)
			number := strings.TrimPrefix(host, "n")
			cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "SALLYPORT_STATE_DIR="+filepath.Join(state, host),
				"NAME="+host, "ADDRESS=192.0.2."+number) // as the page says of the others
			return cmd, nil
		},
		Then: func() error {
			for to, want := range map[netip.Addr]netip.Addr{partner: theVIP, lab.PublicAddr: w.NodeIP(1)} {
				if err := lab.Await(patience, func() error {
					as, err := w.SeenAs(selected(1), to, time.Second)
					if err == nil && as != want {
						err = fmt.Errorf("%s sees the pod as %s, want %s", to, as, want)
					}
					return err
				}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	if err := r.Read(t.Context(), "../README.md"); err != nil {
		t.Fatal(err)
	}
	w.noLeak()
}
