package gossip

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

func TestValidateNamesEverythingWrong(t *testing.T) {
	err := Config{
		Name: "no de", Bind: netip.MustParseAddrPort("0.0.0.0:7946"),
		Join: []string{"10.0.0.1", "10.0.0.2:0", "a/b", "", "good.example:7", "[fd00::1]:7", "fd00::2"},
		Keys: [][]byte{make([]byte, 16)}, ProbeInterval: 10, ProbeTimeout: 10, MaxDatagram: 5, RejoinEvery: -1,
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{
		`gossip name "no de"`, "gossip address 0.0.0.0", `"10.0.0.2:0"`, `"a/b"`, `--join ""`,
		"gossip key 1 has 16 bytes", "logger is missing", "rejoin interval", "probe timeout", "datagram size 5",
	} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("line %d of the error lacks %q:\n%v", i+1, want, err)
		}
	}
	if len(lines) != 10 {
		t.Errorf("%d errors, want 10:\n%v", len(lines), err)
	}
}

func TestValidateAcceptsTheLeast(t *testing.T) {
	err := Config{Name: "n0", Bind: netip.MustParseAddrPort("10.0.0.1:7946"), Keys: keysOf("x"), Log: slog.New(slog.DiscardHandler)}.Validate()
	if err != nil {
		t.Error(err)
	}
}

func TestLiteral(t *testing.T) {
	for join, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:99", "10.0.0.1:5": "10.0.0.1:5", "fd00::1": "[fd00::1]:99",
		"[fd00::1]": "[fd00::1]:99", "[fd00::1]:5": "[fd00::1]:5", "::ffff:10.0.0.1": "10.0.0.1:99",
	} {
		if got, ok := literal(join, 99); !ok || got.String() != want {
			t.Errorf("literal(%q) = %v, %v, want %s", join, got, ok, want)
		}
	}
	if got, ok := literal("a.example:5", 99); ok {
		t.Errorf("a host name is taken for the address %s", got)
	}
}

func TestLoadKeys(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	long := strings.Repeat("k", 40)
	keys, err := LoadKeys(write("good", "\n  "+long+"1 \r\n"+long+"2\n\n"+long+"1\n"))
	if err != nil {
		t.Fatal(err)
	}
	// All of a line counts, beyond the 32 bytes that a key has.
	if want := keysOf(long+"1", long+"2"); len(keys) != 2 || !bytes.Equal(keys[0], want[0]) || !bytes.Equal(keys[1], want[1]) {
		t.Errorf("keys are %x, want %x", keys, want)
	}
	for _, bad := range []struct{ file, want string }{
		{write("empty", "\n \n"), "no key in it"},
		{write("short", long+"\nfifteen letters\n"), "line 2 has 15 characters, a key needs at least 16"},
		{write("huge", strings.Repeat(long+"\n", 2000)), "not a file of at most"},
		{filepath.Join(dir, "absent"), "no such file"},
		{dir, "not a file"},
	} {
		_, err := LoadKeys(bad.file)
		if err == nil || !strings.Contains(err.Error(), bad.want) || !strings.Contains(err.Error(), bad.file) {
			t.Errorf("LoadKeys(%s): %v, want the file and %q", bad.file, err, bad.want)
		}
	}
}

// memberlist reads a slice of keys without the ring's lock while it decrypts: what
// it got before a change must stay as it was.
func TestReplaceKeysLeavesReadersAlone(t *testing.T) {
	ring, err := memberlist.NewKeyring(nil, keysOf("a")[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"ab", "ba", "bac", "cb", "c", "defg", "gd", "a"} {
		want := keysOf(strings.Split(step, "")...)
		before := ring.GetKeys()
		was := clone(before)
		done := make(chan struct{})
		go func() { // a reader, for the race detector
			defer close(done)
			for range 100 {
				contains(ring.GetKeys(), want[0])
			}
		}()
		if err := replaceKeys(ring, want); err != nil {
			t.Fatal(err)
		}
		<-done
		now := ring.GetKeys()
		if len(now) != len(want) || !bytes.Equal(now[0], want[0]) {
			t.Errorf("after %q: %d keys, the first is right: %v", step, len(now), bytes.Equal(now[0], want[0]))
		}
		for _, k := range want {
			if !contains(now, k) {
				t.Errorf("after %q: key %s is missing", step, Fingerprint(k))
			}
		}
		for i := range was {
			if !bytes.Equal(was[i], before[i]) {
				t.Errorf("%q changed the keys a reader was looking at", step)
			}
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add("a secret of some length\nanother secret of length\n")
	f.Add("short")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseKeys(text)
		if err == nil && validateKeys(keys) != nil {
			t.Errorf("parseKeys(%q) gives keys that are not accepted: %v", text, validateKeys(keys))
		}
	})
}
