package cluster

import "strconv"

// The range of Services, and the first address in it, which is the API server's.
const (
	serviceCIDR = "10.96.0.0/16"
	serviceIP   = "10.96.0.1"
)

// auditPolicy keeps what our own programs ask, and nothing of Kubernetes' own.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
`

// arguments of the API server. Pods leave a node that is not ready after 300 seconds, as
// everywhere: when an API server comes back, the controllers first take all nodes for dead,
// and a kubelet may need half a minute to say that it is not.
func (a *APIServer) arguments(etcd string) []string {
	pki := a.ca.file
	return []string{
		"--etcd-servers", etcd, "--advertise-address", a.place.address, "--bind-address", a.place.address,
		"--secure-port", strconv.Itoa(a.place.port), "--allow-privileged", "--service-cluster-ip-range", serviceCIDR,
		"--tls-cert-file", pki("apiserver.crt"), "--tls-private-key-file", pki("apiserver.key"),
		"--client-ca-file", pki("ca.crt"), "--token-auth-file", pki("tokens.csv"),
		"--kubelet-client-certificate", pki("kubelet-client.crt"), "--kubelet-client-key", pki("kubelet-client.key"),
		"--kubelet-preferred-address-types", "InternalIP",
		"--requestheader-client-ca-file", pki("ca.crt"), "--requestheader-allowed-names", "front-proxy-client",
		"--requestheader-username-headers", "X-Remote-User", "--requestheader-group-headers", "X-Remote-Group",
		"--requestheader-extra-headers-prefix", "X-Remote-Extra-",
		"--proxy-client-cert-file", pki("front-proxy.crt"), "--proxy-client-key-file", pki("front-proxy.key"),
		"--service-account-key-file", pki("sa.pub"), "--service-account-signing-key-file", pki("sa.key"),
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--shutdown-delay-duration", "0s",
		"--audit-policy-file", a.Dir + "/audit.yaml", "--audit-log-path", a.AuditLog, "--audit-log-maxsize", "0",
	}
}
