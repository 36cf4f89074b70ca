package priority

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// Every test runs in a child process: the test's own process keeps its priority.
func TestMain(m *testing.M) {
	switch os.Getenv("PRIORITY_CHILD") {
	case "":
		os.Exit(m.Run())
	case "ordinary":
		os.Stdout.WriteString(ordinaryChild())
		return
	}
	// Several threads exist before, and more are made after.
	release := onThreads(8)
	said, raised := Raise()
	if raised != (said == "nice -20") {
		said = fmt.Sprintf("%s, raised: %t", said, raised)
	}
	later := onThreads(8)
	worst, err := lowest()
	if err != nil {
		said = err.Error()
	}
	if said == "nice -20" && worst != -20 {
		said = "a thread was left out"
	}
	release()
	later()
	os.Stdout.WriteString(said)
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
	if got := child(t, "raise", nil); got != "nice -20" {
		t.Errorf("Raise() = %q, want %q", got, "nice -20")
	}
}

func TestRaiseWithoutTheCapabilitySaysSo(t *testing.T) {
	var attr *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	// What is in force without it is what the tests were started with.
	own, err := inForce()
	if err != nil {
		t.Fatal(err)
	}
	want := "normal: CAP_SYS_NICE missing"
	if own != 0 {
		want = fmt.Sprintf("nice %d: CAP_SYS_NICE missing", own)
	}
	if got := child(t, "raise", attr); got != want {
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
