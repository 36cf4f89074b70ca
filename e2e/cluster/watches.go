package cluster

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// What the programs of the control plane and of a node open (inotify(7)), and some more.
const (
	planeWatches = 24
	nodeWatches  = 12
)

// roomForWatches says when the machine would let too few files be watched: a kubelet
// then never becomes ready, and only its log says why.
func roomForWatches(nodes int) error {
	for range planeWatches + nodes*nodeWatches {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if errors.Is(err, unix.EMFILE) {
			limit, _ := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
			return fmt.Errorf("too few inotify instances are free for %d nodes: %s are allowed, and other programs use them too (sysctl -w fs.inotify.max_user_instances=1024, or end other clusters)",
				nodes, strings.TrimSpace(string(limit)))
		} else if err != nil {
			return fmt.Errorf("look for free inotify instances: %w", err)
		}
		defer unix.Close(fd)
	}
	return nil
}
