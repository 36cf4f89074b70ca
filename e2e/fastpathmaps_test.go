package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

// remembered counts the connections of a pod that a gateway's programs know, with a lease or without.
func (w *world) remembered(j int, pod string) (n int) {
	w.t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", w.gateway(j).Pid))
	w.must(err)
	addr := w.addrOf(pod).As4()
	for _, fd := range fds {
		text, _ := os.ReadFile(fd) // it may be closed by now
		_, after, is := strings.Cut(string(text), "map_id:\t")
		if !is {
			continue
		}
		var id ebpf.MapID
		_, err := fmt.Sscan(after, &id)
		w.must(err)
		m, err := ebpf.NewMapFromID(id)
		w.must(err)
		if info, err := m.Info(); err == nil && info.Name == "sally_out" {
			entries, key, value := m.Iterate(), make([]byte, m.KeySize()), make([]byte, m.ValueSize())
			for entries.Next(&key, &value) {
				if [4]byte(key) == addr {
					n++
				}
			}
		}
		w.must(m.Close())
	}
	return n
}

// isForgotten waits until a gateway's programs know no connection of a pod.
func (w *world) isForgotten(pod string) {
	w.t.Helper()
	w.await(func() error {
		if n := w.remembered(1, pod); n > 0 {
			return fmt.Errorf("the gateway's programs know %d connections of %s", n, pod)
		}
		return nil
	})
}
