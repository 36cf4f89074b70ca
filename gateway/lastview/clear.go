package lastview

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Clear removes what gateway and agent saved in the folder, whatever version did, and
// the folder when nothing else is in it.
func Clear(dir string) error {
	var errs []error
	for _, pattern := range []string{"agent-*.json", "gateway-*.json", ".agent-*.json.*", ".gateway-*.json.*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		errs = append(errs, err)
		for _, file := range files {
			if err := os.Remove(file); err != nil {
				errs = append(errs, fmt.Errorf("remove what was saved: %w", err))
			}
		}
	}
	left, err := os.ReadDir(dir)
	if err == nil && len(left) == 0 {
		_ = os.Remove(dir) // where it is a mount it stays
	}
	if !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
