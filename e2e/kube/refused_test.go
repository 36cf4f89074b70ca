package kube_test

import (
	"testing"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

// partly may read all but pods; then those too.
const partly = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: partly}
rules:
- {apiGroups: [""], resources: [namespaces, nodes], verbs: [list, watch]}
- {apiGroups: [sallyport.dev], resources: [egressroutes], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: partly}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: partly}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: partly}]
`

const granted = `[{"op":"add","path":"/rules/-","value":{"apiGroups":[""],"resources":["pods"],"verbs":["list","watch"]}}]`

// These are also the only rights that the source needs.
func TestAMissingRightIsNamedAndItsGrantIsSeen(t *testing.T) {
	api := admin(t)
	api.addNode(t, 1)
	kubectl(t, partly, "apply", "-f", "-")
	v := watch(t, as(t, "partly"), "")
	eventually(t, "the problem", func() bool {
		message, is := v.problem("API resource pods")
		return is && contains(message, "partly", "list", "watch", "account")
	})
	if n := v.delivered(); n > 0 {
		t.Errorf("%d views without pods", n)
	}
	kubectl(t, "", "patch", "clusterrole", "partly", "--type=json", "-p", granted)
	eventually(t, "the view", func() bool { return v.delivered() > 0 && len(v.Problems()) == 0 })
	if n := v.log.count("not allowed to read it"); n != 1 {
		t.Errorf("the same was said %d times", n)
	}
}

func TestAMissingDefinitionIsNamedAndItsInstallationIsSeen(t *testing.T) {
	api := admin(t)
	api.addNode(t, 1)
	kubectl(t, "", "delete", "crd", v1alpha1.Plural+"."+v1alpha1.Group)
	t.Cleanup(func() { kubectl(t, "", "apply", "--server-side", "-f", crdFile) })
	v := watch(t, server.Kubeconfig, "n1")
	eventually(t, "the problem", func() bool {
		message, is := v.problem("API resource " + v1alpha1.Plural)
		return is && contains(message, "helm upgrade")
	})
	if n := v.delivered(); n > 0 {
		t.Errorf("%d views without routes", n)
	}
	must(t, install(t.Context()))
	addRoute(t, "payments", "192.0.2.10", "203.0.113.0/24")
	eventually(t, "the view", func() bool { return routes(v.last()) == "payments" && len(v.Problems()) == 0 })
}
