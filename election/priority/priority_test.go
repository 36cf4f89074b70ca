package priority

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Every test runs in a child process: the test's own process keeps its priority.
func TestMain(m *testing.M) {
	what := os.Getenv("PRIORITY_CHILD")
	os.Setenv("PRIORITY_CHILD", "class") // of the child's children
	said := ""
	switch what {
	case "":
		os.Unsetenv("PRIORITY_CHILD")
		os.Exit(m.Run())
	case "class":
		c, err := of(0)
		said = c.String()
		if err != nil {
			said = err.Error()
		}
	case "nice":
		said = raiseChild(Nice)
	case "realtime":
		said = raiseChild(RealTime)
	case "refused":
		said = refusedChild()
	case "collect":
		said = collectChild()
	case "watcher":
		said = watcherChild()
	case "ordinary":
		said = besideChild(Nice, Ordinary, niced, ordinary)
	case "ordinary-realtime":
		said = besideChild(RealTime, Ordinary, realtime, ordinary)
	case "not-realtime":
		said = besideChild(RealTime, NotRealTime, realtime, niced)
	}
	os.Stdout.WriteString(said)
}

// raiseChild says what is in force: several threads exist before, and more are made
// after.
func raiseChild(w Way) string {
	release := onThreads(8)
	said, raised := Raise(w)
	later := onThreads(8)
	defer later()
	defer release()
	tids, err := threads()
	if err != nil {
		return err.Error()
	}
	for _, tid := range tids {
		if _, is := apart.classes[tid]; is {
			continue
		}
		if c, err := of(tid); err == nil && raised && c.String() != said {
			return fmt.Sprintf("%s, and a thread is at %v", said, c)
		}
	}
	return said
}

// needsRealTime skips where the kernel gives this process none.
func needsRealTime(t *testing.T) {
	t.Helper()
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		refused <- set(0, realtime)
	}()
	if err := <-refused; err != nil {
		t.Skipf("real time: %v", err)
	}
}

// onThreads occupies n threads until the returned function is called.
func onThreads(n int) func() {
	var running, ended sync.WaitGroup
	stop := make(chan struct{})
	for range n {
		running.Add(1)
		ended.Go(func() {
			runtime.LockOSThread()
			running.Done()
			<-stop
		})
	}
	running.Wait()
	return func() { close(stop); ended.Wait() }
}

func TestRaiseReachesEveryThread(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for CAP_SYS_NICE")
	}
	if got := child(t, "nice", nil); got != "nice -20" {
		t.Errorf("Raise() = %q, want %q", got, "nice -20")
	}
}

func TestRaiseWithoutTheCapabilitySaysSo(t *testing.T) {
	var attr *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	// What is in force without it is what the tests were started with.
	own, err := of(0)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := child(t, "nice", attr), own.String()+": CAP_SYS_NICE missing"; got != want {
		t.Errorf("Raise() = %q, want %q", got, want)
	}
}

func child(t *testing.T, what string, attr *syscall.SysProcAttr) string {
	t.Helper()
	// Another user cannot enter the folder of the test binary; the kernel's own link
	// to the running program needs no path.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "PRIORITY_CHILD="+what)
	cmd.SysProcAttr = attr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run the test binary as a child: %v", err)
	}
	return string(out)
}

func TestRealTimeReachesEveryThread(t *testing.T) {
	needsRealTime(t)
	if got := child(t, "realtime", nil); got != "real time 1" {
		t.Errorf("Raise(RealTime) = %q, want %q", got, "real time 1")
	}
}

// refusedChild asks from a control group without real time, as a pod's is.
func refusedChild() string {
	if err := os.WriteFile(filepath.Join(os.Getenv("PRIORITY_CGROUP"), "cgroup.procs"), []byte("0"), 0); err != nil {
		return err.Error()
	}
	said, raised := Raise(RealTime)
	worst, err := lowest()
	return fmt.Sprintf("%v %v at %v, %v", said, raised, worst, err)
}

// Nice takes the place of real time that is refused, and whoever asked hears that something is missing.
func TestRefusedRealTime(t *testing.T) {
	needsRealTime(t)
	group := fmt.Sprintf("/sys/fs/cgroup/cpu/sallyport-test-%d", os.Getpid())
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("needs control groups, version 1, with cpu: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	if given, err := os.ReadFile(filepath.Join(group, "cpu.rt_runtime_us")); err != nil || strings.TrimSpace(string(given)) != "0" {
		t.Skipf("needs a kernel with RT_GROUP_SCHED: %q, %v", given, err)
	}
	t.Setenv("PRIORITY_CGROUP", group)
	const want = "nice -20, real time refused: its cgroup has no real time (cpu.rt_runtime_us), as in a pod where the kernel has RT_GROUP_SCHED false at nice -20, <nil>"
	if got := child(t, "refused", nil); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
