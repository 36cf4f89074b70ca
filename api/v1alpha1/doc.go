// Package v1alpha1 is the API of Sallyport: EgressRoute, and the annotation by
// which pods and namespaces opt in to one.
//
// +kubebuilder:object:generate=true
// +groupName=sallyport.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Names of the API.
const (
	Group   = "sallyport.dev"
	Version = "v1alpha1"
	Kind    = "EgressRoute"
	Plural  = "egressroutes"

	// RoutesAnnotation names, separated by commas, the routes of a pod; on a
	// namespace those of its pods that have no such annotation themselves.
	RoutesAnnotation = Group + "/egress-routes"
)

// Types of an EgressRoute's conditions.
const (
	// Accepted: the spec is valid and a gateway is configured to hold its VIP.
	Accepted = "Accepted"
	// Programmed: the VIP is held and the holder carries out the current spec.
	Programmed = "Programmed"
)

// GroupVersion of this package.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version}

// AddToScheme makes the types of this package known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &EgressRoute{}, &EgressRouteList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
