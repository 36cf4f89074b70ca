package sockops

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test runs itself as the client, so that the client can be in a control group.
const clientEnv = "SALLYPORT_TEST_CLIENT"

func TestMain(m *testing.M) {
	switch orders := os.Getenv(clientEnv); {
	case orders == "attach":
		p, err := Attach("/sys/fs/cgroup", 100*time.Millisecond)
		fmt.Println(p != nil, err)
	case orders != "":
		if err := connect(orders); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(m.Run())
	}
}

// dial is a connection to begin. Its second SYN is not waited for.
type dial struct {
	From, To netip.AddrPort
	// Six makes an IPv6 socket of it, whatever the addresses are.
	Six bool
	// Listen makes it a server at From.
	Listen bool
}

// begun is what came of it.
type begun struct {
	Retries int    // TCP_SYNCNT
	RTO     uint32 // of the connection if it is established, in µs
	Local   netip.AddrPort
}

// connect begins the connections, says how they are for each byte of its input, and
// holds them until that ends.
func connect(orders string) error {
	var dials []dial
	if err := json.Unmarshal([]byte(orders), &dials); err != nil {
		return err
	}
	var sockets []int
	for _, d := range dials {
		fd, err := d.begin()
		if err != nil {
			return fmt.Errorf("%+v: %w", d, err)
		}
		sockets = append(sockets, fd)
	}
	for {
		if n, _ := os.Stdin.Read(make([]byte, 1)); n == 0 {
			return nil
		}
		var all []begun
		for _, fd := range sockets {
			b, err := look(fd)
			if err != nil {
				return err
			}
			all = append(all, b)
		}
		if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
			return err
		}
	}
}

func look(fd int) (begun, error) {
	retries, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT)
	if err != nil {
		return begun{}, err
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return begun{}, err
	}
	b := begun{Retries: retries}
	if info.State == 1 {
		b.RTO = info.Rto
	}
	return b, nil
}

func (d dial) begin() (int, error) {
	sockaddr := func(a netip.AddrPort) unix.Sockaddr {
		if d.Six {
			return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
		}
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	family := unix.AF_INET
	if d.Six {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr(d.From)); err != nil {
		return -1, err
	}
	if d.Listen {
		return fd, unix.Listen(fd, 1)
	}
	if err := unix.Connect(fd, sockaddr(d.To)); err != nil && err != unix.EINPROGRESS {
		return -1, err
	}
	return fd, nil
}

// client runs the dials from within a control group, or outside of it, until the test
// ends. What it gives says how each is now.
func (w world) client(cgroup string, dials ...dial) (now func() []begun) {
	w.t.Helper()
	orders, err := json.Marshal(dials)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), clientEnv+"="+string(orders))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			w.t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			w.t.Errorf("client: %v", err)
		}
	})
	answers := json.NewDecoder(stdout)
	return func() []begun {
		w.t.Helper()
		var all []begun
		if _, err := stdin.Write([]byte{'?'}); err != nil {
			w.t.Fatalf("client: %v", err)
		}
		if err := answers.Decode(&all); err != nil {
			w.t.Fatalf("client: %v", err)
		}
		return all
	}
}
