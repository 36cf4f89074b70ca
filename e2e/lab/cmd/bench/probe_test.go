package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Every kind of client asks, and is answered by the instrument's own partner, all in real
// time; and what a probe that died has not seen is no measurement.
func TestProbe(t *testing.T) {
	w := &world{Lab: lab.Test(t, lab.Options{Prefix: "spbtp", Nodes: 1, PodsPerNode: 1})}
	if err := w.Partner.Admit(netip.PrefixFrom(w.NodeIP(1), 32)); err != nil {
		t.Fatal(err)
	}
	clients := map[string]*probed{}
	for name, begin := range map[string]func(string) (*probed, error){
		"echo": w.echo, "ask": w.ask, "listen": w.listen,
		"connect": func(from string) (*probed, error) { return w.connect(from, pace) },
	} {
		c, err := begin(pod(1))
		if err != nil {
			t.Fatal(err)
		}
		clients[name] = c
	}
	asked := time.Now()
	for name, c := range clients {
		if err := lab.Await(patience, func() error {
			if _, ok := c.Since(asked).NextReply(asked); !ok {
				return fmt.Errorf("%s: no answer, %v", name, c.Broken())
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	if c := clients["ask"]; !c.Local().IsValid() {
		t.Error("a stream's own end is not known")
	}
	for name, n := range w.Partner.Seen("") {
		t.Errorf("the lab's partner, which is for load, saw %d of %s", n, name)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", w.probe.cmd.Process.Pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads %v, %v", tasks, err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(filepath.Base(task))
		if a, err := unix.SchedGetAttr(tid, 0); err == nil && (a.Policy != unix.SCHED_FIFO || a.Priority != 99) {
			t.Errorf("thread %d is scheduled by %d, %d", tid, a.Policy, a.Priority)
		}
	}
	if all := clients["echo"].Stop(); len(all.Exchanges) == 0 || all.End.IsZero() {
		t.Errorf("stopped with %d exchanges, at %v", len(all.Exchanges), all.End)
	}
	if err := w.probe.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = clients["connect"].Since(asked)
	if err := w.probe.close(); err == nil {
		t.Error("a probe that was killed ends as one that measured")
	}
}
