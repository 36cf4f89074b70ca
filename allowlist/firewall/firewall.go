// Package firewall keeps sets of nftables or ipset on this host equal to a list.
package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/sallyport/sallyport/allowlist"
)

// Sets of this host.
type Sets struct {
	sets  allowlist.Sets
	adopt bool
}

// New takes the sets and whether those of others may be taken over.
func New(sets allowlist.Sets, adopt bool) (*Sets, error) {
	if program := sets.Program()[0]; !have(program) {
		return nil, fmt.Errorf("%s is not on this host: install the package of that name", program)
	}
	return &Sets{sets, adopt}, nil
}

func have(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// Apply makes each set equal to the addresses of its version of IP, in one step. A set
// that it cannot change does not keep the other from it.
func (f *Sets) Apply(ctx context.Context, all []allowlist.Address) (added, removed []netip.Addr, err error) {
	var errs []error
	for _, s := range f.sets.Pair() {
		c, err := f.apply(ctx, s, s.Of(all))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		added, removed = append(added, c.Added...), append(removed, c.Removed...)
	}
	return added, removed, errors.Join(errs...)
}

func (f *Sets) apply(ctx context.Context, s allowlist.Set, want []allowlist.Address) (allowlist.Change, error) {
	found, err := look(ctx, s)
	if err != nil {
		return allowlist.Change{}, err
	}
	c, err := s.Compare(found, want, f.adopt)
	if err != nil || !c.Needed {
		return c, err
	}
	if _, err := run(ctx, s.Program(), s.Restore(found.Exists, want)); err != nil {
		return allowlist.Change{}, fmt.Errorf("change %s: %w", s, err)
	}
	return c, nil
}

func look(ctx context.Context, s allowlist.Set) (allowlist.Found, error) {
	out, err := run(ctx, s.Listing(), "")
	switch {
	case err == nil:
		return s.Parse(out)
	case strings.Contains(err.Error(), "No such file or directory"), strings.Contains(err.Error(), "does not exist"):
		return allowlist.Found{}, nil
	}
	return allowlist.Found{}, fmt.Errorf("look at %s: %w", s, err)
}

func run(ctx context.Context, args []string, input string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(input)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return out.Bytes(), nil
}
