package manifest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/gateway"
)

const patient = 10 * time.Second // how long a test waits for what should be at once

func podYAML(name, addr string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: %s, annotations: {sallyport.dev/egress-routes: payments}}
spec: {nodeName: n1}
status: {phase: Running, podIPs: [{ip: %s}]}
`, name, addr)
}

const routeYAML = `apiVersion: sallyport.dev/v1alpha1
kind: EgressRoute
metadata:
  name: payments
spec:
  vip: 192.0.2.10
  namespaceSelector: {}
  destinations:
  - cidr: 203.0.113.0/24
`

// running is a source at work on a folder.
type running struct {
	t    *testing.T
	dir  string
	seen chan gateway.Snapshot
	last gateway.Snapshot
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, dir string, change ...func(*Source)) *running {
	t.Helper()
	before := goleak.IgnoreCurrent()
	r := &running{t: t, dir: dir, seen: make(chan gateway.Snapshot, 1000)}
	s := New(dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
	s.resync = time.Hour // so that only events bring what the test waits for
	for _, c := range change {
		c(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, func(s gateway.Snapshot) { r.seen <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		goleak.VerifyNone(t, before)
	})
	return r
}

// unhurried is for what a writer does in several steps: how long the kernel lets it
// pause between two is not the test's matter.
func unhurried(s *Source) { s.quiet = patient }

// fill a folder with the files of some pods.
func fill(t *testing.T, dir string, pods int) {
	t.Helper()
	for i := range pods {
		write(t, filepath.Join(dir, fmt.Sprintf("p%d.yaml", i)), podYAML(fmt.Sprintf("p%d", i), "10.244.1.10"))
	}
}

func (r *running) path(name string) string { return filepath.Join(r.dir, name) }
func (r *running) write(name, text string) { write(r.t, r.path(name), text) }
func (r *running) must(err error)          { r.t.Helper(); must(r.t, err) }
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a view that the condition holds of. Never is checked on every
// view on the way.
func (r *running) until(what string, holds func(gateway.Snapshot) bool, never ...func(gateway.Snapshot) bool) gateway.Snapshot {
	r.t.Helper()
	deadline := time.After(patient)
	for {
		select {
		case r.last = <-r.seen:
			for _, bad := range never {
				if bad(r.last) {
					r.t.Fatalf("on the way to %s: pods %q, problems %v", what, podNames(r.last), r.last.Problems)
				}
			}
			if holds(r.last) {
				return r.last
			}
		case <-deadline:
			r.t.Fatalf("%s: not seen; last: pods %q, problems %v", what, podNames(r.last), r.last.Problems)
		}
	}
}

func podNames(s gateway.Snapshot) []string {
	var names []string
	for _, p := range s.Pods {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

// pods holds when exactly these pods are there.
func pods(names ...string) func(gateway.Snapshot) bool {
	return func(s gateway.Snapshot) bool { return slices.Equal(podNames(s), slices.Sorted(slices.Values(names))) }
}

func without(name string) func(gateway.Snapshot) bool {
	return func(s gateway.Snapshot) bool { return !slices.Contains(podNames(s), name) }
}

func problem(part string) func(gateway.Snapshot) bool {
	return func(s gateway.Snapshot) bool {
		return slices.ContainsFunc(s.Problems, func(p gateway.Problem) bool { return strings.Contains(p.String(), part) })
	}
}

func sound(s gateway.Snapshot) bool { return len(s.Problems) == 0 }

func both(a, b func(gateway.Snapshot) bool) func(gateway.Snapshot) bool {
	return func(s gateway.Snapshot) bool { return a(s) && b(s) }
}

func TestSourceFollowsFiles(t *testing.T) {
	r := start(t, t.TempDir())
	r.until("the empty folder", pods())
	r.write("a.yaml", podYAML("a", "10.244.1.10"))
	r.until("a new file", pods("a"))
	r.write("a.yaml", podYAML("a", "10.244.1.11"))
	r.until("a changed file", func(s gateway.Snapshot) bool { return s.Pods[0].Addrs[0].String() == "10.244.1.11" })
	r.write("deep/er/b.yml", podYAML("b", "10.244.1.12"))
	r.until("a file in new sub-folders", pods("a", "b"))
	r.write("deep/er/c.json", `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"shop","name":"c"}}{"apiVersion":"v1","kind":"Pod","metadata":{"name":"c2"}}`)
	r.until("two objects in JSON", pods("a", "b", "c", "c2"))
	r.must(os.Rename(r.path("a.yaml"), r.path("z.yaml")))
	r.write("marker.yaml", podYAML("marker", "10.244.1.99"))
	r.until("a renamed file", both(pods("a", "b", "c", "c2", "marker"), sound), without("a"))
	r.must(os.Rename(r.path("deep/er"), r.path("moved")))
	r.write("moved/d.yaml", podYAML("d", "10.244.1.13"))
	r.until("a moved folder", both(pods("a", "b", "c", "c2", "d", "marker"), sound))
	r.must(os.RemoveAll(r.path("moved")))
	r.until("a removed folder", pods("a", "marker"))
	r.must(os.Remove(r.path("z.yaml")))
	r.until("a removed file", pods("marker"))
	r.write("notes.txt", "not a manifest")
	r.write(".hidden.yaml", podYAML("hidden", "10.244.1.14"))
	r.write(".git/x.yaml", podYAML("hidden", "10.244.1.14"))
	r.write("e.yaml", podYAML("e", "10.244.1.15"))
	r.until("the files that count", both(pods("e", "marker"), sound))
}

func TestSourceDeliversFirstAfterOneWholePass(t *testing.T) {
	dir := t.TempDir()
	for i := range 300 {
		write(t, filepath.Join(dir, fmt.Sprint(i%7), fmt.Sprintf("%d.yaml", i)), podYAML(fmt.Sprintf("p%d", i), "10.244.1.10"))
	}
	r := start(t, dir)
	if first := r.until("the first view", func(gateway.Snapshot) bool { return true }); len(first.Pods) != 300 {
		t.Errorf("the first view has %d of 300 pods", len(first.Pods))
	}
}

func TestSourceKeepsWhatABrokenFileSaid(t *testing.T) {
	two := podYAML("a", "10.244.1.10") + "---\n" + podYAML("b", "10.244.1.11")
	for _, c := range []struct {
		name, text string
		pods       []string
		problem    string
	}{
		{"truncated to nothing", "", []string{"a", "b"}, "f.yaml: the file is empty, as while being written"},
		{"no YAML", two + "---\nkind: [\n", []string{"a", "b"}, "f.yaml:13: not YAML"},
		{"one pod broken, the other changed", podYAML("b", "10.244.1.12") + "---\n" + strings.Replace(podYAML("a", "x"), "{ip: x}", "{ip: 10.244.1.300}", 1),
			[]string{"a", "b"}, `f.yaml:11: Pod shop/a: status.podIPs[0].ip: Invalid value: "10.244.1.300": not an IP address`},
		{"one pod broken, the other gone", strings.Replace(podYAML("a", "x"), "{ip: x}", "{ip: one}", 1), []string{"a"}, "Pod shop/a: status.podIPs[0].ip"},
		{"kind misspelt", strings.Replace(two, "kind: Pod", "kind: Pood", 1), []string{"a", "b"}, "f.yaml:2: Pood shop/a: kind: Pood is no kind"},
		{"a list of nothing", "[]", []string{"a", "b"}, "not an API object"},
		{"unknown field of a pod", strings.Replace(two, "nodeName: n1", "nodeName: n1, nodName: n2", 1), []string{"a", "b"}, `f.yaml:4: Pod shop/a: spec.nodName: unknown field "spec.nodName": write nodeName, or remove it`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "f.yaml"), two)
			write(t, filepath.Join(dir, "other.yaml"), podYAML("other", "10.244.1.20"))
			r := start(t, dir)
			r.until("the start", pods("a", "b", "other"))
			r.write("f.yaml", c.text)
			all := append(slices.Clone(c.pods), "other")
			r.until("the problem", both(pods(all...), problem(c.problem)))
			r.write("other.yaml", podYAML("another", "10.244.1.21"))
			r.until("other files are followed", both(pods(append(slices.Clone(c.pods), "another")...), problem(c.problem)))
			r.write("f.yaml", podYAML("c", "10.244.1.13"))
			r.until("the file is sound again", both(pods("another", "c"), sound))
		})
	}
}

func TestSourceRefusesARouteWithUnknownFields(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "r.yaml"), routeYAML)
	r := start(t, dir)
	r.until("the route", func(s gateway.Snapshot) bool { return len(s.Routes) == 1 })
	r.write("r.yaml", strings.Replace(routeYAML, "203.0.113.0/24\n", "203.0.0.0/16\n    port: [{port: 443}]\n", 1))
	if s := r.until("the unknown field", problem("unknown field")); s.Routes[0].Destinations[0].CIDR.Bits() != 24 {
		t.Errorf("the route takes %v, more than its author meant", s.Routes[0].Destinations)
	}
	r.write("r.yaml", strings.Replace(routeYAML, "203.0.113.0/24\n", "203.0.113.0/16\n    port: [{port: 443}]\n", 1))
	s := r.until("the problem", both(problem("has host bits set"), problem(`r.yaml:10: EgressRoute payments: spec.destinations[0].port: unknown field`)))
	if !problem("r.yaml:9: EgressRoute payments: spec.destinations[0].cidr: Invalid value: \"203.0.113.0/16\": has host bits set: write 203.0.0.0/16")(s) {
		t.Errorf("problems %v", s.Problems)
	}
	if got := s.Routes[0].Destinations[0].CIDR.String(); got != "203.0.113.0/24" {
		t.Errorf("the route takes %s, want what it took before", got)
	}
}

func TestSourceWaitsForTheWriter(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.yaml")
	write(t, file, podYAML("a", "10.244.1.10")+"---\n"+podYAML("b", "10.244.1.11"))
	r := start(t, dir)
	r.until("the start", pods("a", "b"))
	f, err := os.Create(file)
	must(t, err)
	_, err = f.WriteString(podYAML("a", "10.244.1.10")) // sound YAML, but b is still to come
	must(t, err)
	// Each of these is a later change than the half file, and read before it.
	for i := range 5 {
		r.write("marker.yaml", podYAML(fmt.Sprintf("marker%d", i), "10.244.1.99"))
		r.until("another file", pods("a", "b", fmt.Sprintf("marker%d", i)), without("b"))
	}
	_, err = f.WriteString("---\n" + podYAML("b", "10.244.1.11") + "---\n" + podYAML("c", "10.244.1.12"))
	must(t, err)
	must(t, f.Close())
	r.until("the whole file", pods("a", "b", "c", "marker4"), without("b"))
}

func TestSourceKeepsAFileThatAnEditorReplaces(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.yaml")
	write(t, file, podYAML("a", "10.244.1.10"))
	r := start(t, dir, unhurried)
	r.until("the start", pods("a"))
	for i := range 20 { // as vim saves: move away, write anew, remove the old one
		must(t, os.Rename(file, file+"~"))
		write(t, file, podYAML("a", "10.244.1.10")+"---\n"+podYAML(fmt.Sprintf("v%d", i), "10.244.1.11"))
		must(t, os.Remove(file+"~"))
		r.until("the new version", pods("a", fmt.Sprintf("v%d", i)), without("a"))
	}
	write(t, filepath.Join(dir, "tmp"), podYAML("a", "10.244.1.10"))
	must(t, os.Rename(filepath.Join(dir, "tmp"), file))
	r.until("an atomic replacement", pods("a"), without("a"))
}

func TestSourceKeepsEverythingWhenTheFolderVanishes(t *testing.T) {
	for _, c := range []struct {
		name   string
		vanish func(dir string) error
	}{
		{"moved away", func(dir string) error { return os.Rename(dir, dir+".away") }},
		{"removed", os.RemoveAll},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "objects")
			fill(t, dir, 200)
			all := func(s gateway.Snapshot) bool { return len(s.Pods) == 200 }
			fewer := func(s gateway.Snapshot) bool { return len(s.Pods) < 200 }
			r := start(t, dir, unhurried)
			r.until("the start", all)
			must(t, c.vanish(dir))
			r.until("the problem", both(all, problem("put it back; what was read from it before (200 files) stays in force")), fewer)
			fill(t, dir+".new", 200)
			must(t, os.Rename(dir+".new", dir))
			r.until("the folder is back", both(all, sound), fewer)
			r.write("new.yaml", podYAML("new", "10.244.1.11"))
			r.until("it is watched again", func(s gateway.Snapshot) bool { return len(s.Pods) == 201 })
		})
	}
}

// Time is the test's own: nothing is taken as deleted while deletions go on, and
// everything once they paused, or went on for too long.
func TestSourceWaitsForTheLastDeletion(t *testing.T) {
	for _, c := range []struct {
		name  string
		files int
		pause func(s *Source) time.Duration // between two deletions
		kept  bool                          // until the last
	}{
		{"on and on", 20, func(s *Source) time.Duration { return s.quiet - time.Nanosecond }, true},
		{"with pauses", 20, func(s *Source) time.Duration { return s.quiet }, false},
		{"for too long", 120, func(s *Source) time.Duration { return s.quiet - time.Nanosecond }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, c.files)
			s := New(dir, slog.New(slog.DiscardHandler))
			must(t, s.enter())
			defer s.leave()
			now := time.Now()
			for i := range c.files {
				name := fmt.Sprintf("p%d.yaml", i)
				now = now.Add(c.pause(s))
				s.process(now)
				if c.kept && len(s.files) != c.files {
					t.Fatalf("after %d deletions %d of %d files are left", i, len(s.files), c.files)
				}
				must(t, os.Remove(filepath.Join(dir, name)))
				for told := false; !told; {
					batch := <-s.watch.events
					s.note(batch, now)
					told = slices.ContainsFunc(batch, func(e event) bool { return e.name == name && e.mask&unix.IN_DELETE != 0 })
				}
			}
			if !c.kept && len(s.files) > c.files/2 {
				t.Errorf("%d of %d files are still there", len(s.files), c.files)
			}
			s.process(now.Add(s.quiet))
			if len(s.files) != 0 {
				t.Errorf("%d of %d files are left in the end", len(s.files), c.files)
			}
		})
	}
}

func TestSourceWaitsUntilNobodyFillsTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	file := func(name string) string { return filepath.Join(dir, name+".yaml") }
	write(t, file("a"), podYAML("a", "10.244.1.10"))
	write(t, file("b"), podYAML("b", "10.244.1.11"))
	s := New(dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
	must(t, s.enter())
	defer s.leave()
	must(t, os.RemoveAll(dir))
	if s.present() {
		t.Fatal("the folder is still there")
	}
	look := func(what string, taken bool) {
		t.Helper()
		s.look()
		if (s.watch != nil) != taken {
			t.Fatalf("%s: taken %v, want %v", what, s.watch != nil, taken)
		}
	}
	look("no folder", false)
	must(t, os.Mkdir(dir, 0o755))
	look("an empty folder", false)
	look("a folder that stays empty", false)
	write(t, file("a"), podYAML("a", "10.244.1.10"))
	look("the first file", false)
	write(t, file("b"), podYAML("b", "10.244.1.11"))
	look("the second file", false)
	look("the same as before", true)
	if !pods("a", "b")(s.view()) {
		t.Errorf("pods %q", podNames(s.view()))
	}
}

func TestSourceWaitsForTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	r := start(t, dir)
	write(t, filepath.Join(t.TempDir(), "x"), "")
	must(t, os.Mkdir(dir, 0o755))
	r.write("a.yaml", podYAML("a", "10.244.1.10"))
	r.until("the folder that was made later", both(pods("a"), sound))
}

func TestSourceTellsDuplicates(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	node := "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: ExternalIP, address: 198.51.100.1}, {type: InternalIP, address: 192.0.2.%d}]}\n"
	r.write("b.yaml", fmt.Sprintf(node, 2))
	r.write("a.yaml", fmt.Sprintf(node, 1))
	s := r.until("the problem", problem("b.yaml:1: Node n1: is also in "+filepath.Join(dir, "a.yaml:1")+", which is used"))
	if len(s.Nodes) != 1 || s.Nodes[0].Addrs[0].String() != "192.0.2.1" {
		t.Errorf("nodes %v, want the one of the first path, its InternalIP first", s.Nodes)
	}
	r.must(os.Remove(r.path("a.yaml")))
	if s := r.until("the other one alone", sound); len(s.Nodes) != 1 || s.Nodes[0].Addrs[0].String() != "192.0.2.2" {
		t.Errorf("nodes %v", s.Nodes)
	}
}

func TestSourceFollowsAMountedConfigMap(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "..1/a.yaml"), podYAML("a", "10.244.1.10"))
	must(t, os.Symlink("..1", filepath.Join(dir, "..data")))
	must(t, os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")))
	r := start(t, dir)
	r.until("the first version", pods("a"))
	write(t, filepath.Join(dir, "..2/a.yaml"), podYAML("b", "10.244.1.11"))
	must(t, os.Symlink("..2", filepath.Join(dir, "..tmp")))
	must(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	r.until("the second version", pods("b"))
}

func TestSourceResyncs(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "sub/a.yaml"), podYAML("a", "10.244.1.10"))
	outside := filepath.Join(t.TempDir(), "a.yaml")
	write(t, outside, podYAML("linked", "10.244.1.11"))
	must(t, os.Symlink(outside, filepath.Join(dir, "link.yaml")))
	r := start(t, dir, func(s *Source) { s.resync = 50 * time.Millisecond })
	r.until("the start", pods("a", "linked"))
	write(t, outside, podYAML("other", "10.244.1.11")) // no event tells of it
	r.until("the change behind the link", pods("a", "other"))
	must(t, os.Remove(outside))
	r.until("the dead link", both(pods("a", "other"), problem("link.yaml: no such file or directory: make it readable, or delete it")))
	must(t, os.Remove(filepath.Join(dir, "link.yaml")))
	r.until("the deleted link", both(pods("a"), sound))
}

func TestSourceReadsAFileThatIsNeverClosed(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, func(s *Source) { s.resync, s.patience = 50*time.Millisecond, 100*time.Millisecond })
	r.until("the start", pods())
	f, err := os.Create(r.path("a.yaml"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(podYAML("a", "10.244.1.10"))
	must(t, err)
	r.until("the file", pods("a"))
}
