package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// stamp is after the name of a full file.
const stamp = "20060102T150405.000000000Z"

// full are the files beside the one that is written, the oldest first.
func full(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("list the audit logs: %w", err)
	}
	var names []string
	for _, e := range entries {
		base := filepath.Base(path) + "."
		if name := e.Name(); len(name) > len(base) && name[:len(base)] == base && e.Type().IsRegular() {
			if _, err := time.Parse(stamp, name[len(base):]); err == nil {
				names = append(names, filepath.Join(filepath.Dir(path), name))
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// prune removes the oldest files, so that a whole piece still fits in.
func prune(cfg Config, now time.Time) error {
	names, err := full(cfg.Path)
	if err != nil {
		return err
	}
	var errs []error
	left := cfg.Keep - cfg.Keep/pieces
	for _, name := range slices.Backward(names) {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("look at an old audit log: %w", err))
			continue
		}
		left -= info.Size()
		if left >= 0 && (cfg.For == 0 || now.Sub(info.ModTime()) <= cfg.For) {
			continue
		}
		if err := os.Remove(name); err != nil {
			errs = append(errs, fmt.Errorf("remove an old audit log: %w", err))
		}
	}
	return errors.Join(errs...)
}
