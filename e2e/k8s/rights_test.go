package k8s

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/yaml"
)

// right is one verb on one resource: what a role grants, or what a call needs.
type right struct {
	account, verb, group, resource string
	namespace                      string // "": of the whole cluster
	name                           string // "": whatever the object is called
}

func (r right) String() string {
	s := fmt.Sprintf("%s: %s %s", r.account, r.verb, r.resource)
	if r.group != "" {
		s += "." + r.group
	}
	if r.name != "" {
		s += " " + r.name
	}
	if r.namespace != "" {
		return s + " in namespace " + r.namespace
	}
	return s + " in the whole cluster"
}

// allows says whether the grant is enough for the call.
func (r right) allows(call right) bool {
	if r.namespace != "" && r.namespace != call.namespace || r.name != "" && r.name != call.name {
		return false
	}
	call.namespace, call.name = r.namespace, r.name
	return r == call
}

// call is one that the API server has answered.
type call struct {
	right
	code int32
}

// differences are the calls that were refused or that no grant is for, and the grants
// that no call has needed, or not so wide.
func differences(grants []right, calls []call) []string {
	var all []string
	for _, c := range calls {
		if c.code == http.StatusForbidden || c.code == http.StatusUnauthorized {
			all = append(all, fmt.Sprintf("refused: %s", c.right))
		} else if !slices.ContainsFunc(grants, func(g right) bool { return g.allows(c.right) }) {
			all = append(all, fmt.Sprintf("not granted by a role of ours: %s", c.right))
		}
	}
	for _, g := range grants {
		namespaces := map[string]bool{}
		for _, c := range calls {
			if g.allows(c.right) {
				namespaces[c.namespace] = true
			}
		}
		switch {
		case len(namespaces) == 0:
			all = append(all, fmt.Sprintf("never used: %s", g))
		case g.namespace == "" && len(namespaces) == 1 && !namespaces[""]:
			all = append(all, fmt.Sprintf("used in one namespace only: %s", g))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// granted are the rights that a chart's objects give to service accounts.
func granted(chart string) ([]right, error) {
	type object struct {
		Kind     string
		Metadata metav1.ObjectMeta
		Rules    []rbacv1.PolicyRule
		RoleRef  rbacv1.RoleRef
		Subjects []rbacv1.Subject
	}
	roles := map[string][]rbacv1.PolicyRule{}
	var bindings []object
	for _, text := range strings.Split(chart, "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			return nil, fmt.Errorf("read an object of the chart: %w:\n%s", err, text)
		}
		switch o.Kind {
		case "Role", "ClusterRole":
			roles[o.Kind+" "+o.Metadata.Namespace+" "+o.Metadata.Name] = o.Rules
		case "RoleBinding", "ClusterRoleBinding":
			bindings = append(bindings, o)
		}
	}
	var all []right
	for _, b := range bindings {
		of := b.Metadata.Namespace
		if b.RoleRef.Kind == "ClusterRole" {
			of = ""
		}
		rules, is := roles[b.RoleRef.Kind+" "+of+" "+b.RoleRef.Name]
		if !is {
			return nil, fmt.Errorf("%s %s binds the %s %s, which is not the chart's", b.Kind, b.Metadata.Name, b.RoleRef.Kind, b.RoleRef.Name)
		}
		for _, s := range b.Subjects {
			account := "system:serviceaccount:" + s.Namespace + ":" + s.Name
			if s.Kind != rbacv1.ServiceAccountKind {
				account = s.Kind + " " + s.Name
			}
			for _, r := range rules {
				all = append(all, spread(r, right{account: account, namespace: b.Metadata.Namespace})...)
			}
		}
	}
	return all, nil
}

// spread writes a rule out, one right after another.
func spread(r rbacv1.PolicyRule, of right) []right {
	var all []right
	if len(r.ResourceNames) == 0 {
		r.ResourceNames = []string{""}
	}
	for _, of.verb = range r.Verbs {
		for _, of.group = range r.APIGroups {
			for _, of.resource = range r.Resources {
				for _, of.name = range r.ResourceNames {
					all = append(all, of)
				}
			}
		}
		for _, url := range r.NonResourceURLs {
			all = append(all, right{account: of.account, verb: of.verb, resource: url})
		}
	}
	return all
}

// called are the calls in an audit log of the accounts of a namespace, each once.
func called(log []byte, namespace string) ([]call, error) {
	seen := map[call]bool{}
	var all []call
	for line := range bytes.Lines(log) {
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("read the audit log: %w: %s", err, line)
		}
		if !strings.HasPrefix(e.User.Username, "system:serviceaccount:"+namespace+":") || e.ResponseStatus == nil {
			continue
		}
		c := call{right: right{account: e.User.Username, verb: e.Verb, resource: e.RequestURI}, code: e.ResponseStatus.Code}
		if o := e.ObjectRef; o != nil {
			c.group, c.resource, c.namespace, c.name = o.APIGroup, o.Resource, o.Namespace, o.Name
			if o.Subresource != "" {
				c.resource += "/" + o.Subresource
			}
		}
		if !seen[c] {
			seen[c] = true
			all = append(all, c)
		}
	}
	return all, nil
}

func TestDifferencesOfRightsAndCallsAreNamed(t *testing.T) {
	grants, err := granted(`kind: ClusterRole
metadata: {name: gateway}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create]}
---
kind: ClusterRoleBinding
metadata: {name: gateway}
roleRef: {kind: ClusterRole, name: gateway}
subjects: [{kind: ServiceAccount, name: gateway, namespace: s}]
---
kind: Role
metadata: {name: uninstall, namespace: s}
rules:
- {apiGroups: [apps], resources: [daemonsets], resourceNames: [agent], verbs: [get, delete]}
---
kind: RoleBinding
metadata: {name: uninstall, namespace: s}
roleRef: {kind: Role, name: uninstall}
subjects: [{kind: ServiceAccount, name: uninstall, namespace: s}]
`)
	if err != nil {
		t.Fatal(err)
	}
	audit := func(account, verb, group, resource, namespace, name string, code int) string {
		return fmt.Sprintf(`{"verb":%q,"user":{"username":"system:serviceaccount:%s"},"objectRef":{"apiGroup":%q,"resource":%q,"namespace":%q,"name":%q},"responseStatus":{"code":%d}}`+"\n",
			verb, account, group, resource, namespace, name, code)
	}
	exact := audit("s:gateway", "list", "", "pods", "", "", 200) + audit("s:gateway", "watch", "", "pods", "", "", 200) +
		audit("s:gateway", "create", "events.k8s.io", "events", "a", "e", 201) + audit("s:gateway", "create", "events.k8s.io", "events", "b", "e", 409) +
		audit("s:uninstall", "get", "apps", "daemonsets", "s", "agent", 200) + audit("s:uninstall", "delete", "apps", "daemonsets", "s", "agent", 404) +
		audit("other:default", "get", "", "secrets", "s", "key", 200)
	const gateway, uninstall = "system:serviceaccount:s:gateway", "system:serviceaccount:s:uninstall"
	for _, c := range []struct{ name, log, want string }{
		{"exactly what is granted", exact, ""},
		{"a verb that is not used", strings.ReplaceAll(exact, `"watch"`, `"list"`), "never used: " + gateway + ": watch pods in the whole cluster"},
		{"a name that is not used", strings.ReplaceAll(exact, `"delete"`, `"get"`), "never used: " + uninstall + ": delete daemonsets.apps agent in namespace s"},
		{"a call refused", exact + audit("s:gateway", "get", "", "secrets", "s", "key", 403), "refused: " + gateway + ": get secrets key in namespace s"},
		{"another name", exact + audit("s:uninstall", "delete", "apps", "daemonsets", "s", "gateway", 200), "not granted by a role of ours: " + uninstall + ": delete daemonsets.apps gateway in namespace s"},
		{"another namespace", exact + audit("s:uninstall", "get", "apps", "daemonsets", "t", "agent", 200), "not granted by a role of ours: " + uninstall + ": get daemonsets.apps agent in namespace t"},
		{"wider than needed", strings.ReplaceAll(exact, `"namespace":"b"`, `"namespace":"a"`), "used in one namespace only: " + gateway + ": create events.events.k8s.io in the whole cluster"},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls, err := called([]byte(c.log), "s")
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(differences(grants, calls), "\n"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// rights of our accounts, against the calls that they made. Of a scenario that has
// failed, what was refused may be the cause, and what was not used says nothing.
func (w *world) rights() {
	w.t.Helper()
	failed := w.t.Failed()
	chart, err := w.API.Helm(w.ctx, "template", "sallyport", "../../charts/sallyport", "--kube-version", "1.31", "--namespace", namespace, "--set", "gateway.vips={"+theVIP.String()+"}")
	w.must(err)
	grants, err := granted(chart)
	w.must(err)
	log, err := os.ReadFile(w.API.AuditLog)
	w.must(err)
	calls, err := called(log, namespace)
	w.must(err)
	w.t.Logf("%d rights, %d different calls", len(grants), len(calls))
	for _, d := range differences(grants, calls) {
		if !failed || strings.HasPrefix(d, "refused: ") {
			w.t.Error(d)
		}
	}
}
