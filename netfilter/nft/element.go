package nft

import "golang.org/x/sys/unix"

// readElements reads a set. There may be many thousands of elements and they are
// read at every Apply: they stay slices of the messages they came in.
func readElements(f family, table, set string) (elements, error) {
	found := []element{}
	which := append(named(unix.NFTA_SET_ELEM_LIST_TABLE, table), named(unix.NFTA_SET_ELEM_LIST_SET, set)...)
	err := request(unix.NFT_MSG_GETSETELEM, f, unix.NLM_F_DUMP, which, func(kind uint16, list string) error {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return each(list, func(_ uint16, e string) error {
			is, err := elementOf(e)
			found = append(found, is)
			return err
		})
	}, func() {})
	return ordered(found), err
}

func elementOf(e string) (is element, err error) {
	err = each(e, func(kind uint16, value string) (err error) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			is.first, err = dataOf(value)
		case elemKeyEnd:
			is.last, err = dataOf(value)
		case unix.NFTA_SET_ELEM_DATA:
			is.data, err = dataOf(value)
		case elemObjRef:
			is.data = text(value)
		}
		return err
	})
	if is.last == "" {
		is.last = is.first
	}
	return is, err
}

// foreign is the datum of an element that only another can have made.
const foreign = "\x00foreign"

// dataOf is a raw value, or the name of the chain that a goto leads to.
func dataOf(value string) (data string, err error) {
	err = each(value, func(kind uint16, value string) error {
		switch kind {
		case unix.NFTA_DATA_VALUE:
			data = value
		case unix.NFTA_DATA_VERDICT:
			return each(value, func(kind uint16, value string) error {
				switch {
				case kind == unix.NFTA_VERDICT_CODE && int32(be32(value)) != unix.NFT_GOTO:
					data = foreign
				case kind == unix.NFTA_VERDICT_CHAIN && data != foreign:
					data = text(value)
				}
				return nil
			})
		}
		return nil
	})
	return data, err
}
