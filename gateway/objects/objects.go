// Package objects turns API objects into what the gateway package decides by. All
// sources share it, so that a manifest and the API server mean the same.
package objects

import (
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/gateway"
)

// Route of a valid EgressRoute; otherwise the errors say what is wrong with it.
func Route(r *v1alpha1.EgressRoute) (gateway.Route, field.ErrorList) {
	if errs := v1alpha1.Validate(r); len(errs) > 0 {
		return gateway.Route{}, errs
	}
	route := gateway.Route{
		Name: r.Name, Generation: r.Generation, Created: r.CreationTimestamp.Time.UTC(),
		VIP:               netip.MustParseAddr(r.Spec.VIP),
		NamespaceSelector: selector(r.Spec.NamespaceSelector),
		FailOpen:          r.Spec.FailClosed != nil && !*r.Spec.FailClosed,
		Exclusive:         r.Spec.Exclusive,
		Audit:             r.Spec.Audit,
	}
	if r.CreationTimestamp.IsZero() {
		route.Created = r.CreationTimestamp.Time
	}
	if r.Spec.PodSelector != nil {
		s := selector(r.Spec.PodSelector)
		route.PodSelector = &s
	}
	for _, d := range r.Spec.Destinations {
		dest := gateway.Destination{CIDR: netip.MustParsePrefix(d.CIDR)}
		for _, e := range d.Except {
			dest.Except = append(dest.Except, netip.MustParsePrefix(string(e)))
		}
		for _, p := range d.Ports {
			dest.Ports = append(dest.Ports, port(p))
		}
		route.Destinations = append(route.Destinations, dest)
	}
	return route, nil
}

func selector(s *metav1.LabelSelector) gateway.Selector {
	out := gateway.Selector{MatchLabels: s.MatchLabels}
	for _, e := range s.MatchExpressions {
		out.Expressions = append(out.Expressions, gateway.Requirement{
			Key: e.Key, Operator: gateway.Operator(e.Operator), Values: e.Values,
		})
	}
	return out
}

func port(p v1alpha1.Port) gateway.Port {
	// Without a port it is the whole protocol, 0 included: a packet to port 0 must
	// not leave another way.
	out := gateway.Port{Protocol: gateway.TCP, First: 0, Last: 65535}
	switch p.Protocol {
	case "UDP":
		out.Protocol = gateway.UDP
	case "SCTP":
		out.Protocol = gateway.SCTP
	}
	if p.Port != nil {
		out.First, out.Last = uint16(*p.Port), uint16(*p.Port)
		if p.EndPort != nil {
			out.Last = uint16(*p.EndPort)
		}
	}
	return out
}

// Pod of an API object.
func Pod(p *corev1.Pod) (gateway.Pod, field.ErrorList) {
	pod := gateway.Pod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Labels: p.Labels,
		Node: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
		Ended:       p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		Terminating: p.DeletionTimestamp != nil,
	}
	pod.Annotation, pod.Annotated = p.Annotations[v1alpha1.RoutesAnnotation]
	path := field.NewPath("status", "podIPs")
	var errs field.ErrorList
	for i, ip := range p.Status.PodIPs {
		pod.Addrs, errs = appendAddr(pod.Addrs, errs, path.Index(i).Child("ip"), ip.IP)
	}
	if len(p.Status.PodIPs) == 0 && p.Status.PodIP != "" {
		pod.Addrs, errs = appendAddr(pod.Addrs, errs, field.NewPath("status", "podIP"), p.Status.PodIP)
	}
	return pod, errs
}

// Namespace of an API object.
func Namespace(n *corev1.Namespace) gateway.Namespace {
	ns := gateway.Namespace{Name: n.Name, Labels: n.Labels}
	if n.Labels[corev1.LabelMetadataName] != n.Name {
		// The API server sets this label on every namespace; a manifest need not.
		ns.Labels = maps.Clone(n.Labels)
		if ns.Labels == nil {
			ns.Labels = map[string]string{}
		}
		ns.Labels[corev1.LabelMetadataName] = n.Name
	}
	ns.Annotation, ns.Annotated = n.Annotations[v1alpha1.RoutesAnnotation]
	return ns
}

// Node of an API object: internal addresses first, the others of its own after them.
func Node(n *corev1.Node) (gateway.Node, field.ErrorList) {
	node := gateway.Node{Name: n.Name}
	var errs field.ErrorList
	path := field.NewPath("status", "addresses")
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for i, a := range n.Status.Addresses {
			if a.Type == kind {
				node.Addrs, errs = appendAddr(node.Addrs, errs, path.Index(i).Child("address"), a.Address)
			}
		}
	}
	if len(node.Addrs) == 0 && len(errs) == 0 {
		errs = append(errs, field.Required(path, "write the node's address as {type: InternalIP, address: 192.0.2.1}"))
	}
	cidrs, at := n.Spec.PodCIDRs, field.NewPath("spec", "podCIDRs")
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	for i, c := range cidrs {
		p, err := netip.ParsePrefix(c)
		if err != nil {
			errs = append(errs, field.Invalid(at.Index(i), c, "not an address range: write one such as 10.244.1.0/24"))
			continue
		}
		node.PodCIDRs = append(node.PodCIDRs, p.Masked())
	}
	return node, errs
}

func appendAddr(addrs []netip.Addr, errs field.ErrorList, path *field.Path, s string) ([]netip.Addr, field.ErrorList) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return addrs, append(errs, field.Invalid(path, s, "not an IP address: write one such as 10.244.1.10"))
	}
	a = a.Unmap()
	for _, other := range addrs {
		if other == a {
			return addrs, errs
		}
	}
	return append(addrs, a), errs
}

// Detail of a field's error, without the field, which a Problem has of its own.
func Detail(err *field.Error) string {
	if err.Field == "" || err.Field == "[]" || err.Type == field.ErrorTypeTypeInvalid {
		return err.Detail
	}
	return err.ErrorBody()
}
