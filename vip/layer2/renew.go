package layer2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// renewProtocol is set aside for experiments (RFC 3692) and handled by no kernel.
const renewProtocol = 253

// ErrTooLate says that the time asked for was over, or too short for the kernel's
// clock, before the kernel was told. The fence closes no later than it would have.
var ErrTooLate = errors.New("too late to renew")

// ErrNotTaken says that no rule of the fence took a renewal: somebody removed the
// fence, or it was not made for the address. Install puts it up again.
var ErrNotTaken = errors.New("the fence (nft tables " + FenceTable + ") did not take it: was it removed, or is the address not among its own?")

// Renew opens the fence for the addresses, or keeps it open, for at most d from now.
func (f *Fence) Renew(addrs []netip.Addr, d time.Duration) error {
	return f.RenewUntil(addrs, Boottime()+d)
}

// RenewUntil is Renew up to an instant of CLOCK_BOOTTIME. A caller that knows the
// instant its lease ends gives that: a process that is stopped between computing a
// duration and using it would give too much.
func (f *Fence) RenewUntil(addrs []netip.Addr, until time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rungs == nil {
		return errors.New("renew: the fence is not installed")
	}
	for _, a := range addrs {
		if err := f.renew(a, until); err != nil {
			return fmt.Errorf("renew %s: %w", a, err)
		}
	}
	return nil
}

func (f *Fence) renew(addr netip.Addr, until time.Duration) error {
	for {
		begun := Boottime()
		i, ok := rung(f.rungs, until-begun-slack)
		if !ok {
			return ErrTooLate
		}
		opening := !f.surelyOpen(addr)
		err := f.tell(addr, number(f.rungs, i, opening))
		if !opening && (errors.Is(err, ErrNotTaken) || err == nil && !f.surelyOpen(addr)) {
			// Stopped on the way until it had closed, for some packet of it or for all. If
			// the lease still lasts, it is opened.
			if err := f.close(addr); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if Boottime()+f.rungs[i] <= until {
			f.until[addr], f.sure[addr] = begun+f.rungs[i], begun+f.rungs[i]-Shortest
			return f.tellPass(addr)
		}
		// This process was stopped on the way: what it just asked for may run too long.
		if err := f.close(addr); err != nil {
			return err
		}
	}
}

// surelyOpen says whether the fence is open for the address in all its tables, whenever in a tick they
// began to count. Then it is enough to renew it, which opens nothing that has closed meanwhile:
// a renewal that hung on its way until another host held the address does no harm.
func (f *Fence) surelyOpen(addr netip.Addr) bool { return Boottime() < f.sure[addr] }

// slack is for the system calls of one renewal: without it, one that takes its
// usual time would count as late.
const slack = 500 * time.Microsecond

// Close closes the fence for the addresses at once.
func (f *Fence) Close(addrs []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, a := range addrs {
		if err := f.close(a); err != nil {
			errs = append(errs, fmt.Errorf("close the fence for %s: %w", a, err))
		}
	}
	return errors.Join(errs...)
}

func (f *Fence) close(addr netip.Addr) error {
	delete(f.until, addr)
	delete(f.sure, addr)
	return errors.Join(f.tellPass(addr), f.tell(addr, firstRung-1))
}

// Open says whether this process has the fence open for the address, by the clock.
func (f *Fence) Open(addr netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Boottime() < f.until[addr]
}

// tell sends the two packets that the rules of the fence take as what. The IPv4
// one is dropped within the system call, which says EPERM: only then was it heard.
// The ARP one is heard by the guard within the system call too, and by the ARP fence in the
// softirq that follows; if it is lost in a flood, the next one comes with the next
// renewal, and partners ask for a MAC only now and then.
func (f *Fence) tell(addr netip.Addr, what uint16) error {
	if !addr.Is4() {
		return errors.New("only IPv4 addresses can be fenced yet")
	}
	packet := make([]byte, 20)
	packet[0] = 0x45 // version 4, 5 words
	binary.BigEndian.PutUint16(packet[4:], what)
	packet[8] = 1 // time to live
	packet[9] = renewProtocol
	copy(packet[12:], addr.AsSlice())
	copy(packet[16:], []byte{127, 0, 0, 1})
	err := unix.Sendto(f.host.raw, packet, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		return ErrNotTaken
	}
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("send to the fence: %w", err)
	}
	if err := f.host.send(f.loop, arpFrame(what, nil, addr, nil, addr)); err != nil {
		return fmt.Errorf("send to the ARP fence: %w", err)
	}
	return nil
}
