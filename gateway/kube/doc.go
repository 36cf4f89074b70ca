// Package kube is the source `kube`: routes, pods, namespaces and nodes as the
// Kubernetes API has them, followed by one watch each; and the addresses of the
// other gateways, by a watch of their pods.
//
// What the API server does not say never takes anything away: while it cannot be
// reached, or refuses, all that it said before stays in force, and a Problem names
// the cure.
package kube
