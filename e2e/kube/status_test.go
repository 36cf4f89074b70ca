package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/kube"
	"github.com/sallyport/sallyport/gateway/report"
)

var vip = netip.MustParseAddr("192.0.2.10")

// reporter is what the chart grants a gateway for status and events, and no more.
const reporter = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reporter}
rules:
- {apiGroups: [sallyport.dev], resources: [egressroutes], verbs: [list, watch]}
- {apiGroups: [sallyport.dev], resources: [egressroutes/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reporter}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reporter}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: reporter}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reporter, namespace: default}
rules:
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reporter, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reporter}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: reporter}]
`

// eyes are what a replica sees, as the test wishes.
type eyes struct {
	mu    sync.Mutex
	sight report.Sight
	looks int
	// hangAt is the look that does not return before hang is closed.
	hangAt int
	hang   chan struct{}
}

func (e *eyes) look() report.Sight {
	e.mu.Lock()
	e.looks++
	hangs := e.looks == e.hangAt
	s := e.sight
	e.mu.Unlock()
	if hangs {
		<-e.hang
	}
	return s
}

func (e *eyes) see(edit func(*report.Sight)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	edit(&e.sight)
}

// looked waits for rounds of writing: each begins with a look.
func (e *eyes) looked(t *testing.T, more int) {
	t.Helper()
	count := func() int {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.looks
	}
	from := count()
	eventually(t, "further rounds", func() bool { return count() >= from+more })
}

// holder sees itself hold the VIP, and the routes in its kernel.
func holder(name, node string, routes ...string) *eyes {
	e := &eyes{sight: report.Sight{
		Name: name, Node: node, Applied: true,
		VIPs: []report.VIP{{Addr: vip, Holder: name, Held: true, Since: time.Now(), Voters: []string{"gw-0", "gw-1"}, Quorum: 2}},
	}}
	for _, r := range routes {
		e.sight.Plan.Routes = append(e.sight.Plan.Routes, gateway.PlannedRoute{Name: r, Generation: 1, VIP: vip, Pods: 3})
	}
	return e
}

// standby makes it see another hold the VIP.
func standby(of string) func(*report.Sight) {
	return func(s *report.Sight) { s.VIPs = []report.VIP{{Addr: vip, Holder: of, Since: time.Now()}} }
}

// write runs a replica's writer until the test ends.
func write(t *testing.T, e *eyes) {
	t.Helper()
	client, err := kube.Connect(as(t, "reporter"), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	status := kube.NewStatus(client, kube.NewEvents(client, "gateway", e.sight.Node, log), log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		status.Run(ctx, e.look)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func getRoute(t *testing.T, name string) v1alpha1.EgressRoute {
	t.Helper()
	out, err := server.Kubectl(t.Context(), "", "get", "egressroute", name, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r v1alpha1.EgressRoute
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func condition(r v1alpha1.EgressRoute, name string) string {
	for _, c := range r.Status.Conditions {
		if c.Type == name {
			return string(c.Status) + "/" + c.Reason
		}
	}
	return ""
}

// told are the events on an object of a UID: how often each reason, and by whom.
func told(t *testing.T, uid string) string {
	t.Helper()
	out, err := server.Kubectl(t.Context(), "", "get", "events.events.k8s.io", "--namespace=default", "--field-selector=regarding.uid="+uid, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var list eventsv1.EventList
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range list.Items {
		count[e.Reason+" by "+e.ReportingInstance]++
	}
	return fmt.Sprint(count)
}

func TestTheHolderWritesTheStatusAndNothingTwice(t *testing.T) {
	admin(t)
	kubectl(t, reporter, "apply", "-f", "-")
	addRoute(t, "payments", vip.String(), "203.0.113.0/24")
	kubectl(t, "", "patch", "egressroute", "payments", "--subresource=status", "--type=merge", "-p",
		`{"status":{"conditions":[{"type":"Audited","status":"True","reason":"ByHand","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`)
	e := holder("gw-0", "n1", "payments")
	write(t, e)
	eventually(t, "a status", func() bool { return condition(getRoute(t, "payments"), "Programmed") == "True/Programmed" })
	r := getRoute(t, "payments")
	if r.Status.Holder != "n1" || r.Status.Pods != 3 || r.Status.ObservedGeneration != 1 || condition(r, "Accepted") != "True/Accepted" {
		t.Errorf("status %+v", r.Status)
	}
	if condition(r, "Audited") != "True/ByHand" {
		t.Errorf("another's condition is gone: %+v", r.Status.Conditions)
	}
	out, err := server.Kubectl(t.Context(), "", "get", "egressroutes", "payments")
	if err != nil || !contains(strings.Join(strings.Fields(out), " "), "NAME VIP HOLDER PODS READY AGE payments 192.0.2.10 n1 3 True") {
		t.Errorf("kubectl get: %v\n%s", err, out)
	}
	eventually(t, "two events", func() bool {
		return told(t, string(r.UID)) == "map[Accepted by n1:1 Programmed by n1:1]"
	})
	e.looked(t, 3)
	if again := getRoute(t, "payments"); again.ResourceVersion != r.ResourceVersion {
		t.Errorf("written again with nothing to say: %+v", again)
	}

	// A count is no transition.
	e.see(func(s *report.Sight) {
		s.Plan.Routes = []gateway.PlannedRoute{{Name: "payments", Generation: 1, VIP: vip}}
	})
	eventually(t, "the count 0", func() bool { return getRoute(t, "payments").Status.Pods == 0 })
	// Nor is a message; the status of a condition moves its time, and only that one's.
	e.see(func(s *report.Sight) { s.ApplyError = "nft: no space left" })
	eventually(t, "the failure", func() bool { return condition(getRoute(t, "payments"), "Programmed") == "False/ApplyFailed" })
	eventually(t, "one more event", func() bool {
		return told(t, string(r.UID)) == "map[Accepted by n1:1 ApplyFailed by n1:1 Programmed by n1:1]"
	})
	for _, c := range getRoute(t, "payments").Status.Conditions {
		for _, before := range r.Status.Conditions {
			if c.Type == before.Type && c.Status == before.Status && !c.LastTransitionTime.Equal(&before.LastTransitionTime) {
				t.Errorf("the time of %s moved although its status stayed", c.Type)
			}
		}
	}
}

func TestTheNewHolderWritesAndTheOldDoesNotFightIt(t *testing.T) {
	admin(t)
	kubectl(t, reporter, "apply", "-f", "-")
	addRoute(t, "payments", vip.String(), "203.0.113.0/24")
	first, second := holder("gw-0", "n1", "payments"), holder("gw-1", "n2", "payments")
	second.see(standby("gw-0"))
	write(t, first)
	write(t, second)
	eventually(t, "a status", func() bool { return getRoute(t, "payments").Status.Holder == "n1" })

	first.see(standby("gw-1"))
	second.see(func(s *report.Sight) { s.VIPs = holder("gw-1", "n2").sight.VIPs })
	eventually(t, "the new holder", func() bool { return getRoute(t, "payments").Status.Holder == "n2" })
	r := getRoute(t, "payments")
	first.looked(t, 3)
	second.looked(t, 3)
	if again := getRoute(t, "payments"); again.ResourceVersion != r.ResourceVersion {
		t.Errorf("written again: %+v", again.Status)
	}
	const want = "map[Accepted by n1:1 HolderMoved by n2:1 Programmed by n1:1]"
	eventually(t, "one event of the move", func() bool { return told(t, string(r.UID)) == want })
}

// A holder that hangs after its decision, and comes back when it has long lost the
// VIP, must not overwrite what the new one said.
func TestAHolderThatHungIsRefused(t *testing.T) {
	admin(t)
	kubectl(t, reporter, "apply", "-f", "-")
	addRoute(t, "payments", vip.String(), "203.0.113.0/24")
	hung := holder("gw-0", "n1", "payments")
	hung.hangAt, hung.hang = 2, make(chan struct{}) // the look just before the write
	write(t, hung)
	eventually(t, "the hang", func() bool {
		hung.mu.Lock()
		defer hung.mu.Unlock()
		return hung.looks == 2
	})
	write(t, holder("gw-1", "n2", "payments"))
	eventually(t, "the new holder", func() bool { return getRoute(t, "payments").Status.Holder == "n2" })
	hung.see(standby("gw-1")) // from its next look on
	close(hung.hang)
	hung.looked(t, 3)
	r := getRoute(t, "payments")
	if r.Status.Holder != "n2" {
		t.Errorf("holder %s: a late write went through", r.Status.Holder)
	}
	eventually(t, "the events", func() bool {
		return told(t, string(r.UID)) == "map[Accepted by n2:1 Programmed by n2:1]"
	})
}

func TestStatusAndEventsCatchUpWithAServerThatWasAway(t *testing.T) {
	admin(t)
	kubectl(t, reporter, "apply", "-f", "-")
	addRoute(t, "payments", vip.String(), "203.0.113.0/24")
	e := holder("gw-0", "n1", "payments")
	write(t, e)
	eventually(t, "a status", func() bool { return getRoute(t, "payments").Status.Pods == 3 })
	uid := string(getRoute(t, "payments").UID)
	eventually(t, "its events", func() bool { return told(t, uid) == "map[Accepted by n1:1 Programmed by n1:1]" })
	up := down(t)
	e.see(func(s *report.Sight) { s.VIPs[0].Conflict = "the host with MAC 02:00:00:00:00:66 claims it" })
	e.looked(t, 3) // tried and failed
	up()
	eventually(t, "the conflict", func() bool { return condition(getRoute(t, "payments"), "Programmed") == "False/VIPConflict" })
	eventually(t, "its event", func() bool {
		return told(t, uid) == "map[Accepted by n1:1 Programmed by n1:1 VIPConflict by n1:1]"
	})
}

func TestAnEventThatIsToldAgainIsTheSame(t *testing.T) {
	admin(t)
	uid := "uid-" + strconv.FormatInt(time.Now().UnixNano(), 16)
	event := report.Event{
		Object: report.Object{Kind: "Pod", Namespace: "default", Name: "a", UID: uid}, Reason: report.Steered, Action: "Steer", Note: "by payments",
	}
	other := event
	other.Note = "by payments, kyc"
	tell := func(events ...report.Event) { // an agent, started anew
		client, err := kube.Connect(server.Kubeconfig, "test", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		e := kube.NewEvents(client, "agent", "n1", slog.New(slog.NewTextHandler(t.Output(), nil)))
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.Run(ctx)
		}()
		t.Cleanup(func() {
			cancel()
			<-done
		})
		e.Tell(events)
	}
	tell(event)
	eventually(t, "the event", func() bool { return told(t, uid) == "map[Steered by n1:1]" })
	tell(event, other) // in this order
	eventually(t, "the other event alone", func() bool { return told(t, uid) == "map[Steered by n1:2]" })
}

// However many pods come and go, the API server is written to at a bounded rate, and
// has every count once they rest.
func TestManyPodChangesAreFewWrites(t *testing.T) {
	const routes, busy, rate = 500, 200, 100
	admin(t)
	kubectl(t, reporter, "apply", "-f", "-")
	var names []string
	var manifests strings.Builder
	for i := range routes {
		names = append(names, fmt.Sprintf("route-%03d", i))
		fmt.Fprintf(&manifests, "---\n{apiVersion: sallyport.dev/v1alpha1, kind: EgressRoute, metadata: {name: %s}, spec: {vip: %s, namespaceSelector: {}, destinations: [{cidr: 203.0.113.%d/32}]}}\n",
			names[i], vip, i%256)
	}
	kubectl(t, manifests.String(), "create", "-f", "-")
	client, err := kube.Connect(server.Kubeconfig, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	e := holder("gw-0", "n1", names...)
	list := func() map[string]v1alpha1.EgressRoute {
		var all v1alpha1.EgressRouteList
		if err := client.Routes().Get().Resource(v1alpha1.Plural).Do(t.Context()).Into(&all); err != nil {
			t.Fatal(err)
		}
		byName := map[string]v1alpha1.EgressRoute{}
		for _, r := range all.Items {
			byName[r.Name] = r
		}
		return byName
	}
	same := func() bool {
		now := list()
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, r := range e.sight.Plan.Routes {
			if got := now[r.Name]; int(got.Status.Pods) != r.Pods || got.Status.Holder != "n1" {
				return false
			}
		}
		return true
	}
	begun := time.Now()
	write(t, e)
	eventually(t, "every route's first status", same)
	t.Logf("%d routes written at first in %v", routes, time.Since(begun).Round(100*time.Millisecond))

	writes := 0
	w, err := client.Routes().Get().Resource(v1alpha1.Plural).Param("watch", "true").Param("resourceVersion", list()["route-000"].ResourceVersion).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	churn := time.NewTicker(time.Second / rate)
	defer churn.Stop()
	end := time.After(10 * time.Second)
	begun = time.Now()
	seen := map[string]string{}
	for name, r := range list() {
		seen[name] = r.ResourceVersion
	}
	for changes, over := 0, false; !over; {
		select {
		case <-churn.C:
			changes++
			e.see(func(s *report.Sight) { // as a new view: plans are not changed
				s.Plan.Routes = append([]gateway.PlannedRoute(nil), s.Plan.Routes...)
				s.Plan.Routes[rand.IntN(busy)].Pods += 1 + rand.IntN(3)
			})
		case event := <-w.ResultChan():
			r, ok := event.Object.(*v1alpha1.EgressRoute)
			if !ok {
				t.Fatalf("watch: %+v", event.Object)
			}
			if seen[r.Name] != r.ResourceVersion {
				writes++
			}
		case <-end:
			took := time.Since(begun)
			t.Logf("%d pod changes in %v: %d writes, %.1f a second", changes, took.Round(time.Second), writes, float64(writes)/took.Seconds())
			if most := 10*took.Seconds() + 10; float64(writes) > most || writes == 0 {
				t.Errorf("%d writes, want some and at most %.0f", writes, most)
			}
			over = true
		}
	}
	eventually(t, "the last counts", same)
}
