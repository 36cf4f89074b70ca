package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
)

// An agent whose folder is not there yet names it, wherever it is asked, until it is.
func TestAnAgentWithoutAViewSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 1, PodsPerNode: 1})
	dir := w.Manifests.Dir + "-later"
	_, err := w.StartAgent(1, "--source", "dir:"+dir)
	w.must(err)
	w.says(lab.Agent, 1, dir, "the folder cannot be read", "make it, or correct --source")
	ns, err := w.Namespace("n1")
	w.must(err)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"status", "--http", "127.0.0.1:9872"}, "has given no view yet, and none was saved"},
		{[]string{"doctor", "--http", "127.0.0.1:9872"}, "has no view yet"},
		{[]string{"trace", "pod-1-1.default", "203.0.113.5:8443", "--http", "127.0.0.1:9872"}, "no view has been applied yet"},
	} {
		out, _ := ns.Command(binary, c.args...).CombinedOutput() // the exit status tells of the findings
		if !strings.Contains(string(out), c.want) {
			t.Errorf("%s does not say %q:\n%s", c.args[0], c.want, out)
		}
	}
	w.must(os.CopyFS(dir, os.DirFS(w.Manifests.Dir)))
	w.await(w.ready(lab.Agent, 1))
	w.content(lab.Agent, 1)
}
