package e2e

import (
	"cmp"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/guide"
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
