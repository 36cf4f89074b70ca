package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EgressRoute says who may leave the cluster by which floating address to which
// destinations.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=sallyport
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="VIP",type=string,JSONPath=`.spec.vip`
// +kubebuilder:printcolumn:name="Holder",type=string,JSONPath=`.status.holder`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type EgressRoute struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec EgressRouteSpec `json:"spec"`
	// +optional
	Status EgressRouteStatus `json:"status,omitempty"`
}

// EgressRouteList is a list of EgressRoutes.
//
// +kubebuilder:object:root=true
type EgressRouteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EgressRoute `json:"items"`
}

// EgressRouteSpec is what the route's author asks for.
//
// +kubebuilder:validation:XValidation:rule="!has(self.exclusive) || !self.exclusive || !has(self.failClosed) || self.failClosed",message="exclusive needs failClosed: a pod that its node does not know yet would reach the destinations all the same"
type EgressRouteSpec struct {
	// VIP is the floating IPv4 address that partners see. A gateway must be
	// configured to hold it.
	//
	// +required
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self) && ip(self).family() == 4",message="vip must be an IPv4 address, such as 192.0.2.10"
	// +kubebuilder:validation:XValidation:rule="!isIP(self) || ip(self).family() != 4 || ip(self).isGlobalUnicast()",message="vip must be a unicast address that is neither loopback nor link-local"
	VIP string `json:"vip"`

	// NamespaceSelector says which namespaces' pods may use the route; {} is every
	// namespace.
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && size(e.values) > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || size(e.values) == 0))",message="matchExpressions: In and NotIn need values, Exists and DoesNotExist take none, and there is no other operator"
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector"`

	// PodSelector selects pods without their opting in, in the namespaces that
	// namespaceSelector admits. Without it pods opt in by annotation only; {} is
	// every pod of those namespaces.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && size(e.values) > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || size(e.values) == 0))",message="matchExpressions: In and NotIn need values, Exists and DoesNotExist take none, and there is no other operator"
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`

	// Destinations are what the route takes. Addresses of the cluster itself
	// (nodes, pod networks, VIPs) are never taken, even inside a cidr.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="self.all(d, self.exists_one(e, e == d))",message="destinations must not repeat each other"
	Destinations []Destination `json:"destinations"`

	// FailClosed makes every node hold back what pods that its agent does not know
	// yet send to the destinations, until the agent knows whether the route selects
	// them: a pod's first packet can come before its agent has seen the pod. With
	// false those packets leave as if there were no route. Where several routes take
	// a packet, one that is failClosed is enough.
	//
	// +optional
	// +default=true
	FailClosed *bool `json:"failClosed,omitempty"`

	// Exclusive keeps the destinations to the selected pods: what any other pod sends
	// there is dropped on its node, unless another route that selects that pod takes
	// the packet. Nodes themselves, and pods on the node's network, are not kept
	// from anything.
	//
	// +optional
	// +default=false
	Exclusive bool `json:"exclusive,omitempty"`

	// Audit has the gateways keep a record of the route's connections, where they are
	// run with an audit log: who had which port of the VIP, towards whom, and when.
	//
	// +optional
	// +default=false
	Audit bool `json:"audit,omitempty"`
}

// Destination is an address range, less its exceptions, on certain ports.
//
// +kubebuilder:validation:XValidation:rule="!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, !isCIDR(e) || (cidr(self.cidr).containsCIDR(e) && cidr(e).prefixLength() > cidr(self.cidr).prefixLength()))",message="each except must lie inside cidr and be smaller than it"
type Destination struct {
	// CIDR is the range with all host bits zero; one address is a /32.
	//
	// +required
	// +kubebuilder:validation:MaxLength=49
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self).ip().family() == 4",message="must be an IPv4 range, such as 203.0.113.0/24 or 203.0.113.9/32"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="must have no host bits set: write 203.0.113.0/24, not 203.0.113.7/24"
	CIDR string `json:"cidr"`

	// Except are ranges inside cidr that the route leaves alone.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Except []CIDR `json:"except,omitempty"`

	// Ports restrict the destination; none means every protocol and port.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Ports []Port `json:"ports,omitempty"`
}

// CIDR is an address range with all host bits zero.
//
// +kubebuilder:validation:MaxLength=49
// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self).ip().family() == 4",message="must be an IPv4 range, such as 203.0.113.0/24 or 203.0.113.9/32"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="must have no host bits set: write 203.0.113.0/24, not 203.0.113.7/24"
type CIDR string

// Port is a range of ports of one protocol.
//
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || (has(self.port) && self.endPort >= self.port)",message="endPort needs a port and must not be below it"
type Port struct {
	// Protocol is TCP, UDP or SCTP.
	//
	// +optional
	// +default="TCP"
	// +kubebuilder:validation:Enum=TCP;UDP;SCTP
	Protocol string `json:"protocol,omitempty"`

	// Port is the first port; none means every port of the protocol.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	// EndPort is the last port of the range that begins with port.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	EndPort *int32 `json:"endPort,omitempty"`
}

// EgressRouteStatus is what the gateways report.
type EgressRouteStatus struct {
	// Conditions are Accepted and Programmed.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Holder is the node that holds the VIP.
	//
	// +optional
	Holder string `json:"holder,omitempty"`

	// Pods is the number of pods that the route selects.
	//
	// +optional
	Pods int32 `json:"pods,omitempty"`

	// ObservedGeneration is the generation of the spec that the status is about.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}
