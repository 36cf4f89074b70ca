package lastview

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Replace writes a file anew from parts. Whatever happens meanwhile, the file holds
// the old contents or the new.
func Replace(file string, parts ...[]byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("save %s: %w", file, err)
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	for _, part := range parts {
		if err == nil {
			_, err = tmp.Write(part)
		}
	}
	if err == nil {
		// Without it a power cut may leave the new name with no contents (rename(2)
		// orders names, not data).
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", tmp.Name(), err)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return fmt.Errorf("save %s: %w", file, err)
	}
	return nil
}
