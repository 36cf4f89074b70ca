package layer2

import (
	"errors"
	"net/netip"
	"time"
)

// Pass is a way that packets may take past the fence's tables.
type Pass interface {
	// Until opens it for an address up to an instant of CLOCK_BOOTTIME, and no longer whatever
	// becomes of this process; 0 closes it.
	Until(addr netip.Addr, until time.Duration) error
}

// SetPass has a pass follow the fence, or none. It is open for an address that Ajar was said of, while
// the tables surely are.
func (f *Fence) SetPass(p Pass) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pass = p
	return f.tellAll()
}

// Ajar says that packets of addresses that are in place may take the pass while the fence is open, or that
// none may: what comes for an address that is taken off is to wait.
func (f *Fence) Ajar(addrs []netip.Addr, may bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, a := range addrs {
		f.ajar[a] = may
		errs = append(errs, f.tellPass(a))
	}
	return errors.Join(errs...)
}

func (f *Fence) tellAll() error {
	var errs []error
	for _, a := range f.addrs {
		errs = append(errs, f.tellPass(a))
	}
	return errors.Join(errs...)
}

// tellPass is for who has the lock. The instant is one at which no table has closed yet.
func (f *Fence) tellPass(addr netip.Addr) error {
	if f.pass == nil {
		return nil
	}
	until := time.Duration(0)
	if f.ajar[addr] {
		until = f.sure[addr]
	}
	return f.pass.Until(addr, until)
}
