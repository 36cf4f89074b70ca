package gateway

import (
	"reflect"
	"testing"
)

func TestWithMissingAddsOnlyWhatIsMissing(t *testing.T) {
	now := Snapshot{
		Routes: []Route{{Name: "a", Generation: 2}},
		Pods:   []Pod{{Namespace: "x", Name: "p", UID: "new"}},
		Nodes:  []Node{{Name: "n1"}},
	}
	older := Snapshot{
		Routes:     []Route{{Name: "a", Generation: 1}, {Name: "b"}},
		Pods:       []Pod{{Namespace: "x", Name: "p", UID: "old"}, {Namespace: "y", Name: "p"}},
		Namespaces: []Namespace{{Name: "x"}},
	}
	got := now.WithMissing(older)
	want := Snapshot{
		Routes:     []Route{{Name: "a", Generation: 2}, {Name: "b"}},
		Pods:       []Pod{{Namespace: "x", Name: "p", UID: "new"}, {Namespace: "y", Name: "p"}},
		Namespaces: []Namespace{{Name: "x"}},
		Nodes:      []Node{{Name: "n1"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if len(now.Routes) != 1 || !(Snapshot{}).Empty() || got.Empty() {
		t.Error("the newer view itself was changed, or Empty is wrong")
	}
}

func TestDoubtfulIsAboutFilesOnly(t *testing.T) {
	for _, c := range []struct {
		problem Problem
		want    bool
	}{
		{Problem{File: "a.yaml", Reason: Unreadable}, true},
		{Problem{File: "a.yaml", Reason: Invalid}, true},
		{Problem{File: "a.yaml", Reason: Duplicate}, false},
		{Problem{Object: "Pod x/p", Reason: UnknownRoute}, false},
	} {
		if got := (Snapshot{Problems: []Problem{c.problem}}).Doubtful(); got != c.want {
			t.Errorf("%+v: %v", c.problem, got)
		}
	}
}
