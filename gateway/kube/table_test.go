package kube

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// words is a table of pods' "word" labels; "bad" is refused.
func words() (t *table[string], changes *int) {
	changes = new(int)
	return newTable("Pod", func() { *changes++ }, func(obj any) (string, field.ErrorList) {
		word := obj.(*corev1.Pod).Labels["word"]
		if word == "bad" {
			return "", field.ErrorList{field.Invalid(field.NewPath("metadata", "labels"), word, "write another")}
		}
		return word, nil
	}), changes
}

func named(name, word string) any {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"word": word}}}
}

func TestTable(t *testing.T) {
	type step func(*table[string]) error
	replace := func(all ...any) step { return func(t *table[string]) error { return t.Replace(all, "1") } }
	add := func(o any) step { return func(t *table[string]) error { return t.Add(o) } }
	update := func(o any) step { return func(t *table[string]) error { return t.Update(o) } }
	remove := func(o any) step { return func(t *table[string]) error { return t.Delete(o) } }
	for _, c := range []struct {
		name     string
		steps    []step
		want     string
		problems int
		changes  int
	}{
		{"read", []step{replace(named("a", "x"), named("b", "y"))}, "x y", 0, 1},
		{"read and empty", []step{replace()}, "", 0, 1},
		{"added", []step{replace(), add(named("a", "x"))}, "x", 0, 2},
		{"changed", []step{replace(named("a", "x")), update(named("a", "y"))}, "y", 0, 2},
		{"deleted", []step{replace(named("a", "x")), remove(named("a", "other"))}, "", 0, 2},
		{"written without a change", []step{replace(named("a", "x")), update(named("a", "x"))}, "x", 0, 1},
		{"read again without a change", []step{replace(named("a", "x")), replace(named("a", "x"))}, "x", 0, 1},
		{"gone when read again", []step{replace(named("a", "x"), named("b", "y")), replace(named("b", "y"))}, "y", 0, 2},
		{"refused at first", []step{replace(named("a", "bad"), named("b", "y"))}, "y", 1, 1},
		{"refused later stays", []step{replace(named("a", "x")), update(named("a", "bad"))}, "x", 1, 2},
		{"refused when read again stays", []step{replace(named("a", "x")), replace(named("a", "bad"))}, "x", 1, 2},
		{"refused twice stays", []step{replace(named("a", "x")), update(named("a", "bad")), replace(named("a", "bad"))}, "x", 1, 2},
		{"refused, then sound", []step{replace(named("a", "x")), update(named("a", "bad")), update(named("a", "z"))}, "z", 0, 3},
		{"refused, then deleted and made anew", []step{replace(named("a", "x")), remove(named("a", "x")), add(named("a", "bad"))}, "", 1, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, changes := words()
			if _, _, read := table.values(); read {
				t.Error("read before anything was")
			}
			var errs []error
			for _, step := range c.steps {
				errs = append(errs, step(table))
			}
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			got, problems, read := table.values()
			slices.Sort(got)
			if strings.Join(got, " ") != c.want || len(problems) != c.problems || !read || *changes != c.changes {
				t.Errorf("values %q, %d problems, read %v, %d changes; want %q, %d, %d", got, len(problems), read, *changes, c.want, c.problems, c.changes)
			}
			for _, p := range problems {
				if p.Object != "Pod ns/a" || p.Field != "metadata.labels" || !strings.Contains(p.Message, "write another") {
					t.Errorf("problem %+v", p)
				}
			}
		})
	}
}

// A reflector's own store converts objects before it hands them over.
func TestTransformedObjectsAreTakenAsTheyAre(t *testing.T) {
	table, _ := words()
	transform := table.Transformer()
	var all []any
	for _, word := range []string{"x", "bad"} {
		row, err := transform(named(word, word))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := transform(row); err != nil || !reflect.DeepEqual(again, row) {
			t.Fatalf("%v is not what it was: %v, %v", again, row, err)
		}
		all = append(all, row)
	}
	if err := table.Replace(all, "1"); err != nil {
		t.Fatal(err)
	}
	if got, problems, _ := table.values(); !slices.Equal(got, []string{"x"}) || len(problems) != 1 {
		t.Errorf("values %q, problems %v", got, problems)
	}
	if err := table.Add("no object"); err == nil {
		t.Error("what is no object is taken")
	}
}
