package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tools are the commands that a lab and the programs in it call, and the packages
// in which Debian has them.
var tools = []struct{ command, pkg string }{
	{"iptables", "iptables"}, {"ipset", "ipset"}, {"nft", "nftables"}, {"ip", "iproute2"},
}

// Equipped says what this machine and user lack for a lab, and the cure.
func Equipped() error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("needs root, for its network namespaces: run it with sudo"))
	}
	var commands, packages []string
	for _, t := range tools {
		if _, err := exec.LookPath(t.command); err != nil {
			commands, packages = append(commands, t.command), append(packages, t.pkg)
		}
	}
	if commands != nil {
		errs = append(errs, fmt.Errorf("missing commands: %s (apt-get install %s)",
			strings.Join(commands, " "), strings.Join(packages, " ")))
	}
	return errors.Join(errs...)
}

// FindBinary is the sallyport program: the one given, or the one beside the
// executable that asks.
func FindBinary(given string) (string, error) {
	path := given
	if path == "" {
		path = beside("sallyport")
	}
	path, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("find the sallyport program: %w (build it with `make build`, or give --binary)", err)
	}
	return filepath.Abs(path)
}

// beside is the path of a program in the folder of the running one, as one would
// type it here. It has a slash in any case: PATH is not searched.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return "./" + name
	}
	path := filepath.Join(filepath.Dir(self), name)
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(wd, path)
	switch {
	case err != nil || strings.HasPrefix(rel, ".."):
		return path
	case !strings.Contains(rel, "/"):
		return "./" + rel
	}
	return rel
}
