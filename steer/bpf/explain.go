// Package bpf is what the parts of the agent that load BPF programs share.
package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Explain adds the cure to an error of loading or attaching programs, which a kernel can
// since that version of Linux, if it is built with the options.
func Explain(err error, since, options string) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: it needs the capabilities BPF and NET_ADMIN, and a seccomp profile that lets it call bpf", err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel needs to be Linux %s or later, built with %s", err, since, options)
	}
	return err
}
