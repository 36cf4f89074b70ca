package k8s

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/guide"
	"github.com/sallyport/sallyport/e2e/lab"
)

// TestGettingStartedDoesWhatItSays is the page's reader, with the lab's partner as the
// host outside.
func TestGettingStartedDoesWhatItSays(t *testing.T) {
	t.Parallel()
	w := start(t, cluster.Options{})
	repository, err := filepath.Abs("../..")
	w.must(err)
	r := guide.Reader{
		Dir: repository, Env: []string{"IMAGE=" + cluster.Repository, "TAG=" + cluster.Tag}, Patience: 3 * patience, Tell: t.Logf,
		Command: func(host, name string, args ...string) (*exec.Cmd, error) {
			switch host {
			case "":
				return w.API.Shell(name, args...), nil
			case "outside":
				ns, err := w.Lab.Namespace(lab.PartnerHost)
				if err != nil {
					return nil, err
				}
				cmd := ns.Command(name, args...)
				cmd.Env = append(os.Environ(), "PATH="+filepath.Join(repository, "bin")+":"+os.Getenv("PATH"))
				return cmd, nil
			}
			return nil, errors.New("there is no host " + host)
		},
	}
	w.must(r.Read(w.ctx, filepath.Join(repository, "docs", "getting-started-kubernetes.md")))
	w.oneHolder()
}
