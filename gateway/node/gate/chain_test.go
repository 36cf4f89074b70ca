package gate

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const theirs = `{"cniVersion": "1.0.0", "future": {"b": 1, "a": 1e2}, "name": "cluster", "plugins": [
  {"type": "bridge", "ipam": {"type": "host-local", "z": 1, "ranges": [[{"subnet": "10.244.1.0/24"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}], "disableCheck": true}
`

var link = Link{Mark: "/run/m", Wait: "1s", Source: "10-cluster.conflist"}

func TestFollowKeepsEveryWordAndComesLast(t *testing.T) {
	text, l, err := follow([]byte(theirs), link)
	if err != nil {
		t.Fatal(err)
	}
	ours := `{"type":"sallyport-cni","mark":"/run/m","wait":"1s","source":"10-cluster.conflist","sum":"` + l.Sum + `"}`
	want := `{
  "cniVersion": "1.0.0",
  "future": {"b": 1, "a": 1e2},
  "name": "cluster",
  "plugins": [
    {"type": "bridge", "ipam": {"type": "host-local", "z": 1, "ranges": [[{"subnet": "10.244.1.0/24"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}},
    ` + ours + `
  ],
  "disableCheck": true
}
`
	if string(text) != want || len(l.Sum) != 64 {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if in, found := linkIn(text); !found || in != l || in.Type != Plugin {
		t.Errorf("%+v is found in it: %t", in, found)
	}
	if in, found := linkIn([]byte(theirs)); found {
		t.Errorf("%+v is found in theirs", in)
	}
}

// Another program that copies the first configuration copies ours into its own: the
// two must come to rest.
func TestFollowOfACopyOfOursIsOurs(t *testing.T) {
	first, l, err := follow([]byte(theirs), link)
	if err != nil {
		t.Fatal(err)
	}
	again, m, err := follow(first, link)
	if err != nil || string(again) != string(first) || m != l {
		t.Errorf("%v, %+v:\n%s", err, m, again)
	}
	moved := strings.Replace(string(first), `{"type": "bridge"`, strings.TrimSpace(`{"type":"sallyport-cni","wait":"9s"}, {"type": "bridge"`), 1)
	if again, m, err = follow([]byte(moved), link); err != nil || string(again) != string(first) || m != l {
		t.Errorf("%v, %+v:\n%s", err, m, again)
	}
	if _, m, err = follow([]byte(strings.Replace(theirs, "portmap", "tuning", 1)), link); err != nil || m.Sum == l.Sum {
		t.Errorf("%v: a change is not seen", err)
	}
}

func TestFollowRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "no JSON",
		"[]":                                "no JSON object",
		theirs[:len(theirs)-2]:              "not whole",
		theirs[:60]:                         "no JSON",
		theirs + "{}":                       "follows its end",
		`{"name": "x"}`:                     "lists no plugins",
		`{"plugins": []}`:                   "lists no plugins",
		`{"plugins": {}}`:                   "no list",
		`{"plugins": [{"name": "x"}]}`:      "plugin 1 has no type",
		`{"plugins": [{"type": "x"}, 1]}`:   "plugin 2 has no type",
		`{"plugins": [1], "plugins": [{}]}`: "twice",
		`{"plugins": [{"type": "sallyport-cni"}]}`: "no plugins but ours",
	} {
		if out, _, err := follow([]byte(text), link); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q\n%s", text, err, want, out)
		}
	}
}

// Whatever is accepted says the same afterwards, with one plugin more.
func FuzzFollow(f *testing.F) {
	f.Add([]byte(theirs))
	f.Add([]byte(`{"a\u0062":"\ud800","plugins":[{"type":"x"},{"type":"sallyport-cni","sum":1}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		out, l, err := follow(text, link)
		if err != nil {
			return
		}
		var before, after map[string]any
		if err := json.Unmarshal(text, &before); err != nil {
			t.Fatalf("accepted what is no JSON: %v", err)
		}
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("made what is no JSON: %v\n%s", err, out)
		}
		plugins := after[pluginsKey].([]any)
		if last := plugins[len(plugins)-1].(map[string]any); last["type"] != Plugin || last["sum"] != l.Sum {
			t.Fatalf("the last plugin is %v", last)
		}
		var kept []any
		for _, p := range before[pluginsKey].([]any) {
			if typed, err := json.Marshal(p); err != nil || typeOf(typed) != Plugin {
				kept = append(kept, p)
			}
		}
		before[pluginsKey], after[pluginsKey] = kept, plugins[:len(plugins)-1]
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%v became %v", before, after)
		}
		if again, m, err := follow(out, link); err != nil || string(again) != string(out) || m != l {
			t.Fatalf("%v: once more it is\n%s\nand was\n%s", err, again, out)
		}
	})
}
