package nft

import (
	"slices"
	"strings"
)

// element of a set as the kernel has it: a raw key and, in a map, the raw datum.
type element struct {
	key
	data string
}

// key is the first and last raw key of an element; the two are equal where the
// element is no range.
type key struct{ first, last string }

func (k key) compare(other key) int {
	if c := strings.Compare(k.first, other.first); c != 0 {
		return c
	}
	return strings.Compare(k.last, other.last)
}

// elements are in the order of their keys, of which none is there twice: of two lists of
// thousands, one walk through both tells the difference.
type elements []element

// ordered takes a list over. Of those with one key the last counts.
func ordered(list []element) elements {
	inOrder := func(a, b element) int { return a.compare(b.key) }
	if !slices.IsSortedFunc(list, inOrder) {
		slices.SortStableFunc(list, inOrder)
	}
	kept := list[:0]
	for i, e := range list {
		if i+1 == len(list) || list[i+1].key != e.key {
			kept = append(kept, e)
		}
	}
	return kept
}

// find the datum of a key.
func (e elements) find(k key) (data string, there bool) {
	i, there := slices.BinarySearchFunc(e, k, func(e element, k key) int { return e.compare(k) })
	if !there {
		return "", false
	}
	return e[i].data, true
}

// differ gives what is only in have, and what is only in e, a datum that differs included.
func (e elements) differ(have elements) (gone, added elements) {
	for len(e) > 0 && len(have) > 0 {
		order := e[0].compare(have[0].key)
		if order >= 0 && (order > 0 || e[0].data != have[0].data) {
			gone = append(gone, have[0])
		}
		if order <= 0 && (order < 0 || e[0].data != have[0].data) {
			added = append(added, e[0])
		}
		if order >= 0 {
			have = have[1:]
		}
		if order <= 0 {
			e = e[1:]
		}
	}
	return append(gone, have...), append(added, e...)
}

// said is what the kernel announced of an element.
type said struct {
	element
	gone bool
}

// after takes the elements over and gives them as they are after all that was said.
func (e elements) after(all []said) elements {
	slices.SortStableFunc(all, func(a, b said) int { return a.compare(b.key) })
	kept, news := e[:0], all
	for _, old := range e {
		for len(news) > 0 && news[0].compare(old.key) < 0 {
			news = news[1:]
		}
		if len(news) == 0 || news[0].key != old.key {
			kept = append(kept, old)
		}
	}
	var fresh elements
	for i, s := range all {
		if last := i+1 == len(all) || all[i+1].key != s.key; last && !s.gone {
			fresh = append(fresh, s.element)
		}
	}
	// From the end on, so that none is overwritten before it has moved.
	from := len(kept) - 1
	kept = append(kept, fresh...)
	for to := len(kept) - 1; len(fresh) > 0; to-- {
		if last := fresh[len(fresh)-1]; from >= 0 && kept[from].compare(last.key) > 0 {
			kept[to] = kept[from]
			from--
		} else {
			kept[to] = last
			fresh = fresh[:len(fresh)-1]
		}
	}
	return kept
}
