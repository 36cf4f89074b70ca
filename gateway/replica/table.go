package replica

import (
	"context"
	"errors"
	"slices"

	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/conntrack"
)

// table is this kernel's, as a standby's stream needs it.
type table struct {
	part   *part
	writer *conntrack.Writer
}

func (t *table) Flows() ([]flows.Flow, error) { return t.part.scope.Table() }

func (t *table) Live() ([]flows.Flow, error) { return t.part.scope.Flows() }

// Apply takes over what this replica's own view does not forbid. What the kernel
// refuses, being full, must not cost the rest.
func (t *table) Apply(changes []flows.Change) error {
	m := t.part.mirror
	m.ended.mu.RLock()
	defer m.ended.mu.RUnlock()
	for i := range changes {
		if changes[i].Op != flows.Delete && m.ended.has(changes[i].Flow) {
			changes[i].Op = flows.Delete
		}
	}
	err := t.part.scope.Apply(t.writer, changes, m.timeouts.Standby)
	if errors.Is(err, conntrack.ErrClosed) {
		return err
	}
	if err != nil {
		t.part.refuse(len(changes), err)
	}
	return nil
}

// held is this kernel's table, as a holder's streams need it.
type held struct{ part *part }

func (h held) Flows() ([]flows.Flow, error) { return h.part.scope.Flows() }

func (h held) Flush(ctx context.Context) error {
	listener := h.part.mirror.listener.Load()
	if listener == nil {
		return errors.New("connection-tracking events are not heard yet")
	}
	return listener.Flush(ctx)
}

// Adopt does as Apply does, for connections whose packets pass here.
func (h held) Adopt(changes []flows.Change) error {
	m := h.part.mirror
	m.ended.mu.RLock()
	defer m.ended.mu.RUnlock()
	changes = slices.DeleteFunc(changes, func(c flows.Change) bool { return c.Op != flows.Delete && m.ended.has(c.Flow) })
	w, err := conntrack.NewWriter()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := h.part.scope.Adopt(w, changes, m.timeouts); err != nil {
		h.part.refuse(len(changes), err)
	}
	return nil
}
