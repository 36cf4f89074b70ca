package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// place puts a file into its folder, or in the place of another, in one step: who has
// the old one open or running keeps it. The name meanwhile is none that a container
// runtime reads.
func place(file string, mode fs.FileMode, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), temporary(file))
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = tmp.Write(text)
	// After a power cut the name must not be there without the contents.
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

func temporary(file string) string { return "." + filepath.Base(file) + ".*" }

// remove a file, and what an interrupted place of it left.
func remove(file string) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(file), temporary(file)))
	errs := []error{err}
	for _, path := range append(left, file) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
