package cluster

// SeeNodes gives a subject of RBAC, in YAML, all that `allowlist sync --nodes` needs of the API server.
func SeeNodes(subject string) string {
	return `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: see-nodes}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: see-nodes}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: see-nodes}
subjects: [` + subject + `]
`
}
