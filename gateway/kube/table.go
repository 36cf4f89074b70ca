package kube

import (
	"fmt"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/tools/cache"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/objects"
)

// table is what the API server last said of one kind, each object as the value
// that is used of it. A reflector writes to it: in a shared informer's store the old
// form of an object is gone before anybody could see that the new one is refused.
type table[T any] struct {
	kind    string
	convert func(obj any) (T, field.ErrorList)
	changed func()

	mu sync.Mutex
	// rows lie side by side: all of them are gone through for every view.
	rows []row[T]
	at   map[cache.ObjectName]int // index in rows
	// read says that all objects have been read once.
	read bool
}

// row is one object. The errors say why its present form cannot be used.
type row[T any] struct {
	key    cache.ObjectName
	value  T
	sound  bool // the value is one that was valid, now or before
	errors field.ErrorList
}

func newTable[T any](kind string, changed func(), convert func(obj any) (T, field.ErrorList)) *table[T] {
	return &table[T]{kind: kind, convert: convert, changed: changed, at: map[cache.ObjectName]int{}}
}

// Transformer lets a reflector convert each object as it arrives, so that the first
// reading of many does not hold all of them in full.
func (t *table[T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if r, ok := obj.(row[T]); ok {
			return r, nil
		}
		key, err := cache.ObjectToName(obj)
		if err != nil {
			return nil, err
		}
		value, errs := t.convert(obj)
		return row[T]{key: key, value: value, sound: len(errs) == 0, errors: errs}, nil
	}
}

// Replace implements cache.ReflectorStore.
func (t *table[T]) Replace(all []any, _ string) error {
	transform := t.Transformer()
	rows, at := make([]row[T], 0, len(all)), make(map[cache.ObjectName]int, len(all))
	t.mu.Lock()
	unchanged := t.read && len(all) == len(t.rows)
	for _, obj := range all {
		r, err := transform(obj)
		if err != nil {
			t.mu.Unlock()
			return fmt.Errorf("read a list of %s: %w", t.kind, err)
		}
		now, same := t.taken(r.(row[T]))
		unchanged = unchanged && same
		at[now.key] = len(rows)
		rows = append(rows, now)
	}
	t.rows, t.at, t.read = rows, at, true
	t.mu.Unlock()
	if !unchanged {
		t.changed()
	}
	return nil
}

// taken is what a row is in the table; what is refused stays what it was. Much of what
// happens to objects changes nothing that is used of them: a node's heartbeat, a
// route's status.
func (t *table[T]) taken(r row[T]) (_ row[T], same bool) {
	i, existed := t.at[r.key]
	if !existed {
		return r, false
	}
	before := t.rows[i]
	if !r.sound && before.sound {
		r.value, r.sound = before.value, true
	}
	if reflect.DeepEqual(before, r) {
		return before, true
	}
	return r, false
}

// Add implements cache.ReflectorStore.
func (t *table[T]) Add(obj any) error { return t.Update(obj) }

// Update implements cache.ReflectorStore.
func (t *table[T]) Update(obj any) error {
	r, err := t.Transformer()(obj)
	if err != nil {
		return fmt.Errorf("read a %s: %w", t.kind, err)
	}
	t.mu.Lock()
	now, same := t.taken(r.(row[T]))
	if i, existed := t.at[now.key]; existed {
		t.rows[i] = now
	} else {
		t.at[now.key] = len(t.rows)
		t.rows = append(t.rows, now)
	}
	t.mu.Unlock()
	if !same {
		t.changed()
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (t *table[T]) Delete(obj any) error {
	key, err := cache.ObjectToName(obj)
	if err != nil {
		return fmt.Errorf("read which %s is deleted: %w", t.kind, err)
	}
	t.mu.Lock()
	if i, existed := t.at[key]; existed { // the last one takes its place
		last := len(t.rows) - 1
		t.rows[i] = t.rows[last]
		t.at[t.rows[i].key] = i
		t.rows[last] = row[T]{}
		t.rows = t.rows[:last]
		delete(t.at, key)
	}
	t.mu.Unlock()
	t.changed()
	return nil
}

// Resync implements cache.ReflectorStore.
func (t *table[T]) Resync() error { return nil }

// values are the usable ones, and what is wrong with those that are not; false
// before all objects have been read once.
func (t *table[T]) values() ([]T, []gateway.Problem, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	values := make([]T, 0, len(t.rows))
	var problems []gateway.Problem
	for i := range t.rows {
		r := &t.rows[i]
		if r.sound {
			values = append(values, r.value)
		}
		for _, err := range r.errors {
			problems = append(problems, gateway.Problem{
				Object: t.kind + " " + r.key.String(), Field: err.Field, Reason: gateway.Invalid, Message: objects.Detail(err),
			})
		}
	}
	return values, problems, t.read
}
