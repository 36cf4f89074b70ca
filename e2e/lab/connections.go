package lab

import (
	"slices"
	"time"

	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/conntrack"
)

// Track puts connections into the kernel of this thread's namespace, and ends them, as
// packets do, for which a machine may be too slow: a connection of TCP is opened first and
// established then.
func Track(s conntrack.Scope, changes []flows.Change) error {
	w, err := conntrack.NewWriter()
	if err != nil {
		return err
	}
	defer w.Close()
	const synRecv = 2
	opened := slices.Clone(changes)
	var established []conntrack.Entry
	for i := range opened {
		if f := &opened[i].Flow; opened[i].Op != flows.Delete && f.State == conntrack.TCPEstablished {
			established = append(established, s.Entry(*f))
			f.State = synRecv
		}
	}
	if err := s.Apply(w, opened, func(conntrack.Entry) time.Duration { return time.Hour }); err != nil {
		return err
	}
	return w.Update(established)
}
