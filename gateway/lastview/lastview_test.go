package lastview

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway"
)

func view() gateway.Snapshot {
	return gateway.Snapshot{
		Routes: []gateway.Route{{
			Name: "payments", Generation: 3, Created: time.Unix(5, 0).UTC(), VIP: netip.MustParseAddr("192.0.2.10"),
			NamespaceSelector: gateway.Selector{MatchLabels: map[string]string{"a": "b"}, Expressions: []gateway.Requirement{{Key: "k", Operator: gateway.In, Values: []string{"v"}}}},
			PodSelector:       &gateway.Selector{},
			Destinations: []gateway.Destination{{CIDR: netip.MustParsePrefix("203.0.113.0/24"), Except: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")},
				Ports: []gateway.Port{{Protocol: gateway.UDP, First: 1, Last: 2}}}},
		}},
		Pods: []gateway.Pod{{Namespace: "shop", Name: "a", UID: "u", Labels: map[string]string{"x": "y"}, Annotated: true, Node: "n1",
			Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("fd00::1")}, Terminating: true}},
		Namespaces: []gateway.Namespace{{Name: "shop", Annotation: "payments", Annotated: true}},
		Nodes:      []gateway.Node{{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}},
		Internal:   []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		Problems:   []gateway.Problem{{Object: "f", File: "f", Line: 2, Reason: gateway.Invalid, Message: "m"}},
	}
}

func TestRestoreGivesWhatSaveWasGiven(t *testing.T) {
	file := filepath.Join(t.TempDir(), "view")
	for _, s := range []gateway.Snapshot{{}, view()} { // the second replaces the first
		if err := Save(file, s); err != nil {
			t.Fatal(err)
		}
		got, err := Restore(file)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("restored %+v, %v; want %+v", got, err, s)
		}
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
	hidden, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*"))
	if len(left)+len(hidden) != 1 {
		t.Errorf("left behind: %q %q", left, hidden)
	}
}

func TestRestoreRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "view")
	if _, err := Restore(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none saved: %v, want fs.ErrNotExist", err)
	}
	if err := Save(file, view()); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "not a saved view"},
		{"other file", "hello\nworld", "not a saved view"},
		{"header cut", string(sound[:10]), "not a saved view"},
		{"cut short", string(sound[:len(sound)-5]), "damaged: checksum"},
		{"one bit", strings.Replace(string(sound), "10.244.1.10", "10.244.1.11", 1), "damaged: checksum"},
		{"newer", strings.Replace(string(sound), "view 1", "view 2", 1), "written in format 2, this program reads 1"},
		{"zeroes", strings.Repeat("\x00", len(sound)), "not a saved view"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Restore(file)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v, want %q and the file's name", c.name, err, c.want)
		}
		if !reflect.DeepEqual(s, gateway.Snapshot{}) {
			t.Errorf("%s: part of a view came with the error", c.name)
		}
	}
}

func TestSaveKeepsTheOldViewWhenItCannotWrite(t *testing.T) {
	if err := Save(filepath.Join(t.TempDir(), "nowhere", "view"), view()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a folder that is not there: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	file := filepath.Join(f.TempDir(), "view")
	if err := Save(file, view()); err != nil {
		f.Fatal(err)
	}
	sound, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound)
	f.Add([]byte("sallyport-view 1 crc32c 00000000\n{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if s, err := decode(raw); err != nil && !reflect.DeepEqual(s, gateway.Snapshot{}) {
			t.Errorf("part of a view came with %v", err)
		}
	})
}
