package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// stamp says on what, when and by which command a section was measured.
func (b *bench) stamp(began time.Time) string {
	tools := []string{runtime.Version()}
	for _, t := range [][]string{{"nft", "--version"}, {"iptables", "--version"}, {"keepalived", "--version"}} {
		tools = append(tools, t[0]+" "+toolVersion(t[0], t[1:]...))
	}
	return fmt.Sprintf("`%s`, %s, %s, in %s. Linux %s, %d × %s, %s memory; %s.",
		b.command, began.UTC().Format("2006-01-02"), began.UTC().Format("15:04 UTC"), time.Since(began).Round(time.Second),
		kernelVersion(), runtime.NumCPU(), field("/proc/cpuinfo", "model name"), memory(), strings.Join(tools, ", "))
}

// kernelVersion leaves out the builder's own suffix.
func kernelVersion() string { return versionForm.FindString(read("/proc/sys/kernel/osrelease")) }

var versionForm = regexp.MustCompile(`\d+(\.\d+)+`)

func toolVersion(name string, args ...string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return "not installed"
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if v := versionForm.FindString(string(out)); err == nil && v != "" {
		return v
	}
	return "of unknown version"
}

func memory() string {
	kib, _ := strconv.ParseFloat(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 64)
	return fmt.Sprintf("%.0f GiB", kib/(1<<20))
}

// field is the first value of a name in a file of "name : value" lines.
func field(path, name string) string {
	for line := range strings.Lines(read(path)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func read(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
