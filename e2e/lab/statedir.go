package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// StateDir is the state directory of a program on node j.
func (l *Lab) StateDir(role Role, j int) string {
	return filepath.Join(l.stateDir(), programKey{role, j}.String())
}

// onAFullDisk mounts a disk of one page, without a byte free, over the folder that is its
// first argument, and becomes the program that follows. `ip netns exec` has given it a mount
// namespace of its own, so that nobody else sees the disk and it ends with the program.
const onAFullDisk = `mkdir -p "$0" && mount -t tmpfs -o size=4k full "$0" && head -c 4096 /dev/zero >"$0/ballast" && exec "$@"`

// StartOnFullDisk starts a program on node j whose state directory takes nothing, and has
// nothing of an earlier run.
func (l *Lab) StartOnFullDisk(role Role, j int) (*Program, error) {
	return l.start(role, j, []string{"sh", "-c", onAFullDisk, l.StateDir(role, j)}, nil)
}

// SpoilState puts a text in the place of the view that a program on node j has saved, or is
// about to.
func (l *Lab) SpoilState(role Role, j int, with string) error {
	dir := l.StateDir(role, j)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, string(role)+"-view.json"), []byte(with), 0o600)
	}
	if err != nil {
		return fmt.Errorf("spoil the state of %s: %w", programKey{role, j}, err)
	}
	return nil
}

// FindOurs lists what programs of ours have left on a host, by its names: our tables,
// sets, devices, and the VIPs.
func (l *Lab) FindOurs(host string) ([]string, error) {
	state, err := l.HostState(host)
	if err != nil {
		return nil, err
	}
	signs := []string{"sally"}
	for _, v := range l.Options.VIPs {
		signs = append(signs, v.String()+"/32")
	}
	var found []string
	for _, s := range state {
		for _, line := range lines(s.Text) {
			for _, sign := range signs {
				if strings.Contains(strings.ToLower(line), sign) {
					found = append(found, s.Title+": "+strings.TrimSpace(line))
					break
				}
			}
		}
	}
	return found, nil
}
