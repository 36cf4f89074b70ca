package lastview

import (
	"os"
	"path/filepath"
	"testing"
)

func TestClearTakesWhatWasSavedAndNothingElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names := func() (all []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	if err := Clear(dir); err != nil {
		t.Errorf("without the folder: %v", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"agent-view.json", "gateway-view.json", "gateway-peers.json", ".agent-view.json.123", "agent.json", "theirs"} {
		write(name)
	}
	if err := Clear(dir); err != nil {
		t.Fatal(err)
	}
	if left := names(); len(left) != 2 || left[0] != "agent.json" || left[1] != "theirs" {
		t.Errorf("left: %v", left)
	}
	for _, name := range names() {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("agent-view.json")
	if err := Clear(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
}
