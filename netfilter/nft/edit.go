package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// edit is what changes among the elements of one set.
type edit struct {
	set   string
	kind  kind
	gone  elements
	added elements
}

// few is how many elements go to the kernel without nft: all messages of a
// transaction have to fit one send buffer.
const few = 512

// small says whether the change is some elements and nothing else, as when a pod
// comes or goes.
func (d *change) small() bool {
	if d.tx.NumOperations() != d.added+d.removed || d.added+d.removed > few {
		return false
	}
	for _, e := range d.edits {
		if e.kind == counterOfMark { // leads to an object, which the library has no words for
			return false
		}
	}
	return true
}

// send carries a small change into the kernel in one transaction, over netlink: nft
// takes longer to start and to list the sets than all the rest.
func (d *change) send(f family, table string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nfnetlink: %w", err)
	}
	of := &nftables.Table{Family: nftables.TableFamily(f), Name: table}
	for _, e := range d.edits {
		set := &nftables.Set{Table: of, Name: e.set}
		// Removals first, as in the text for nft.
		if err := inTurn(e.gone, e.removal, func(list []nftables.SetElement) error { return conn.SetDeleteElements(set, list) }); err != nil {
			return fmt.Errorf("remove elements of %s: %w", e.set, err)
		}
		if err := inTurn(e.added, e.addition, func(list []nftables.SetElement) error { return conn.SetAddElements(set, list) }); err != nil {
			return fmt.Errorf("add elements to %s: %w", e.set, err)
		}
	}
	return conn.Flush()
}

func inTurn(all elements, spelled func(element) nftables.SetElement, add func([]nftables.SetElement) error) error {
	if len(all) == 0 {
		return nil
	}
	list := make([]nftables.SetElement, len(all))
	for i, e := range all {
		list[i] = spelled(e)
	}
	return add(list)
}

func (e edit) removal(of element) nftables.SetElement {
	el := nftables.SetElement{Key: []byte(of.first)}
	if e.kind.isInterval() { // an end even where it is the beginning
		el.KeyEnd = []byte(of.last)
	}
	return el
}

func (e edit) addition(of element) nftables.SetElement {
	el := e.removal(of)
	switch e.kind {
	case portVerdict, hostVerdict:
		el.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: of.data}
	case sourceClass, portMark, hostMark:
		el.Val = []byte(of.data)
	}
	return el
}
