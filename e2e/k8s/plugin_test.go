package k8s

import (
	"os"
	"os/exec"
	"path/filepath"
)

// plugin puts the program into PATH as kubectl finds its plugins, until the scenario ends.
func (w *world) plugin() {
	w.t.Helper()
	bin := w.t.TempDir()
	program := os.Getenv("SALLYPORT_BIN")
	if program == "" {
		program = filepath.Join(bin, "sallyport")
		if out, err := exec.Command("go", "build", "-o", program, "github.com/sallyport/sallyport/cmd/sallyport").CombinedOutput(); err != nil {
			w.t.Fatalf("build sallyport: %v: %s", err, out)
		}
	}
	w.must(os.Symlink(program, filepath.Join(bin, "kubectl-sallyport")))
	w.t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}
