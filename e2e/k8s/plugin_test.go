package k8s

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// program is the one under test.
func (w *world) program() string {
	w.t.Helper()
	file, err := givenOrBuilt()
	w.must(err)
	return file
}

// plugin puts the program into PATH as kubectl finds its plugins.
func (w *world) plugin() { w.t.Helper(); w.must(inPath()) }

// Parallel scenarios have one program, and one PATH.
var (
	givenOrBuilt = sync.OnceValues(func() (string, error) {
		if given := os.Getenv("SALLYPORT_BIN"); given != "" {
			return given, nil
		}
		built := filepath.Join(scratch, "sallyport")
		out, err := exec.Command("go", "build", "-o", built, "github.com/sallyport/sallyport/cmd/sallyport").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("build sallyport: %w: %s", err, out)
		}
		return built, err
	})
	inPath = sync.OnceValue(func() error {
		program, err := givenOrBuilt()
		bin := filepath.Join(scratch, "bin")
		return errors.Join(err, os.Mkdir(bin, 0o755), os.Symlink(program, filepath.Join(bin, "kubectl-sallyport")),
			os.Setenv("PATH", bin+":"+os.Getenv("PATH")))
	})
)
