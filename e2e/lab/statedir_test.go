package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFullDiskAndSpoiledState(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := Test(t, Options{Prefix: "spltn", Nodes: 1, PodsPerNode: -1, Binary: self, Env: []string{"SPLT_ROLE=program"}})
	p, err := l.StartOnFullDisk(Gateway, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := Await(patience, func() error { _, err := l.Status(Gateway, 1); return err }); err != nil {
		t.Fatal(err)
	}
	dir := l.StateDir(Gateway, 1)
	seen := filepath.Join("/proc", strconv.Itoa(p.Pid), "root", dir, "gateway-view.json")
	if err := os.WriteFile(seen, []byte("x"), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("written where the program has its state: %v, want %v", err, unix.ENOSPC)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "gateway-view.json")
	if err := os.WriteFile(mine, []byte("x"), 0o600); err != nil {
		t.Errorf("the disk is full for others, too: %v", err)
	}
	if err := l.SpoilState(Gateway, 1, "spoilt"); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(mine); string(text) != "spoilt" {
		t.Errorf("the state is %q", text)
	}
}
