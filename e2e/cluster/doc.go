// Package cluster is a real Kubernetes cluster on one Linux machine, for tests: its
// programs are built from Go modules, its images are made here, and its nodes are
// namespaces on the network of package lab, each with a containerd, a kubelet and a
// kube-proxy of its own. The lab's partner, faults and captures work on it.
package cluster
