package hang

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tracer holds threads of a process; where it ends they go on.
type tracer struct {
	pid    int
	seized map[int]bool
}

// hold is the tracer's process.
func hold(what string) error {
	runtime.LockOSThread() // only the thread that seized may say anything
	number, which, _ := strings.Cut(what, " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	t := &tracer{pid: pid, seized: map[int]bool{}}
	var held int
	if vip, isVIP := netip.ParseAddr(which); isVIP == nil {
		held, err = t.catch(vip)
	} else if held, err = strconv.Atoi(which); err == nil {
		if err = t.seize(held); err == nil {
			_, _, err = t.wait(held)
		}
	}
	for orders := bufio.NewScanner(os.Stdin); err == nil; {
		fmt.Println("done")
		if !orders.Scan() {
			return nil
		}
		if err = unix.PtraceSyscall(held, 0); err == nil {
			_, _, err = t.wait(held)
		}
	}
	return err
}

// catch lets the process run up to the call that ends a renewal of the fence for the VIP, holds the
// thread at its beginning and lets the others go.
func (t *tracer) catch(vip netip.Addr) (held int, err error) {
	var looked time.Time
	for begun := time.Now(); time.Since(begun) < time.Minute; {
		if time.Since(looked) > 100*time.Millisecond {
			if err := t.seizeNew(); err != nil {
				return 0, err
			}
			looked = time.Now()
		}
		tid, status, err := t.wait(-1)
		if err != nil {
			return 0, err
		}
		if status.StopSignal() == syscallStop && t.renews(tid, vip) {
			t.releaseBut(tid)
			return tid, nil
		}
		_ = unix.PtraceSyscall(tid, due(status)) // one that was killed is waited for above
	}
	return 0, errors.New("no renewal came")
}

const syscallStop = unix.SIGTRAP | 0x80

// due is the signal that a thread was about to get when it was stopped.
func due(status unix.WaitStatus) int {
	if s := status.StopSignal(); status>>16 == 0 && s != unix.SIGTRAP && s != syscallStop {
		return int(s)
	}
	return 0
}

func (t *tracer) ptrace(request, tid int, addr, data uintptr) error {
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); e != 0 {
		return fmt.Errorf("trace thread %d: %w", tid, e)
	}
	return nil
}

func (t *tracer) seize(tid int) error {
	if err := t.ptrace(unix.PTRACE_SEIZE, tid, 0, unix.PTRACE_O_TRACESYSGOOD); err != nil {
		return err
	}
	t.seized[tid] = true
	return unix.PtraceInterrupt(tid)
}

func (t *tracer) seizeNew() error {
	tids, err := Threads(t.pid)
	for _, tid := range tids {
		if !t.seized[tid] {
			if err := t.seize(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return err
}

// wait until a thread stops, any for -1.
func (t *tracer) wait(tid int) (stopped int, status unix.WaitStatus, err error) {
	for {
		stopped, err = unix.Wait4(tid, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, 0, err
		case status.Stopped():
			return stopped, status, nil
		default: // it has ended
			delete(t.seized, stopped)
			if stopped == tid {
				return 0, 0, unix.ESRCH
			}
		}
	}
}

func (t *tracer) releaseBut(held int) {
	for tid := range t.seized {
		if tid == held || unix.PtraceInterrupt(tid) != nil {
			continue
		}
		if _, status, err := t.wait(tid); err == nil {
			_ = t.ptrace(unix.PTRACE_DETACH, tid, 0, uintptr(due(status)))
		}
	}
}

// renews tells whether a thread is about to send the ARP frame of a renewal, the last of its packets: an
// operation beyond the real ones.
func (t *tracer) renews(tid int, vip netip.Addr) bool {
	var info struct { // struct ptrace_syscall_info of ptrace(2)
		op   uint8
		_    [7]byte
		_    [2]uint64
		call uint64
		args [6]uint64
		_    uint64
	}
	const getSyscallInfo, entry, length = 0x420e, 1, 28
	err := t.ptrace(getSyscallInfo, tid, unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)))
	if err != nil || info.op != entry || info.call != unix.SYS_SENDTO || info.args[2] != length {
		return false
	}
	frame := make([]byte, length)
	local := []unix.Iovec{{Base: &frame[0], Len: length}}
	n, err := unix.ProcessVMReadv(t.pid, local, []unix.RemoteIovec{{Base: uintptr(info.args[1]), Len: length}}, 0)
	return err == nil && n == length && binary.BigEndian.Uint16(frame[6:]) > 256 && slices.Equal(frame[14:18], vip.AsSlice())
}
