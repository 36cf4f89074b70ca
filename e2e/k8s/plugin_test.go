package k8s

import (
	"os"
	"os/exec"
	"path/filepath"
)

// program is the one under test, built where it is not given.
func (w *world) program() string {
	w.t.Helper()
	if given := os.Getenv("SALLYPORT_BIN"); given != "" {
		return given
	}
	built := filepath.Join(w.t.TempDir(), "sallyport")
	if out, err := exec.Command("go", "build", "-o", built, "github.com/sallyport/sallyport/cmd/sallyport").CombinedOutput(); err != nil {
		w.t.Fatalf("build sallyport: %v: %s", err, out)
	}
	return built
}

// plugin puts the program into PATH as kubectl finds its plugins, until the scenario ends.
func (w *world) plugin() {
	w.t.Helper()
	bin := w.t.TempDir()
	w.must(os.Symlink(w.program(), filepath.Join(bin, "kubectl-sallyport")))
	w.t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}
