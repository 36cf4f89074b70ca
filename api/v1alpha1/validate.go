package v1alpha1

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits that keep the CRD's CEL rules within the API server's cost budget; they
// are the same here, so that a manifest never passes one and not the other.
const (
	maxDestinations = 128
	maxExcept       = 64
	maxPorts        = 32
)

// Validate says what is wrong with a route's spec and what to write instead. Its
// verdict is that of the CRD's schema, for sources that no API server stands
// before.
func Validate(r *EgressRoute) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateVIP(spec.Child("vip"), r.Spec.VIP)
	namespaces := spec.Child("namespaceSelector")
	if r.Spec.NamespaceSelector == nil {
		errs = append(errs, field.Required(namespaces,
			"it says who may use the route: write matchLabels, or {} for every namespace"))
	} else {
		errs = append(errs, validateSelector(namespaces, r.Spec.NamespaceSelector)...)
	}
	if r.Spec.PodSelector != nil {
		errs = append(errs, validateSelector(spec.Child("podSelector"), r.Spec.PodSelector)...)
	}
	if r.Spec.Exclusive && r.Spec.FailClosed != nil && !*r.Spec.FailClosed {
		errs = append(errs, field.Invalid(spec.Child("exclusive"), true,
			"exclusive needs failClosed: a pod that its node does not know yet would reach the destinations all the same: remove failClosed: false"))
	}
	return append(errs, validateDestinations(spec.Child("destinations"), r.Spec.Destinations)...)
}

func validateVIP(path *field.Path, s string) field.ErrorList {
	if s == "" {
		return field.ErrorList{field.Required(path, "write the floating IPv4 address, such as 192.0.2.10")}
	}
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil && strings.Contains(s, "/"):
		return field.ErrorList{field.Invalid(path, s, "a VIP is one address: write it without a prefix length")}
	case err != nil:
		return field.ErrorList{field.Invalid(path, s, "not an IP address: write four numbers from 0 to 255, such as 192.0.2.10")}
	case addr.Is6():
		return field.ErrorList{field.Invalid(path, s, "an IPv6 address: VIPs are IPv4, such as 192.0.2.10")}
	case !addr.IsGlobalUnicast():
		return field.ErrorList{field.Invalid(path, s, "not an address that a partner can see: write a unicast address that is neither loopback nor link-local")}
	}
	return nil
}

func validateSelector(path *field.Path, s *metav1.LabelSelector) field.ErrorList {
	return metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, path)
}

func validateDestinations(path *field.Path, all []Destination) field.ErrorList {
	if len(all) == 0 {
		return field.ErrorList{field.Required(path, "write at least one, such as {cidr: 203.0.113.0/24}")}
	}
	if len(all) > maxDestinations {
		return field.ErrorList{field.TooMany(path, len(all), maxDestinations)}
	}
	var errs field.ErrorList
	for i, d := range all {
		at := path.Index(i)
		errs = append(errs, validateDestination(at, d)...)
		if first := slices.IndexFunc(all[:i], func(e Destination) bool { return equal(d, e) }); first >= 0 {
			err := field.Duplicate(at, d.CIDR)
			err.Detail = fmt.Sprintf("the same as destinations[%d]: remove one", first)
			errs = append(errs, err)
		}
	}
	return errs
}

func validateDestination(path *field.Path, d Destination) field.ErrorList {
	whole, errs := validateCIDR(path.Child("cidr"), d.CIDR)
	if len(d.Except) > maxExcept {
		errs = append(errs, field.TooMany(path.Child("except"), len(d.Except), maxExcept))
	} else {
		for i, e := range d.Except {
			at := path.Child("except").Index(i)
			except, exceptErrs := validateCIDR(at, string(e))
			errs = append(errs, exceptErrs...)
			switch {
			case !whole.IsValid() || !except.IsValid():
			case !whole.Contains(except.Addr()) || except.Bits() < whole.Bits():
				errs = append(errs, field.Invalid(at, string(e), fmt.Sprintf("not inside %s: an exception takes part of its cidr away; remove it or correct it", d.CIDR)))
			case except.Bits() == whole.Bits():
				errs = append(errs, field.Invalid(at, string(e), "takes the whole cidr away: remove the destination instead"))
			}
		}
	}
	if len(d.Ports) > maxPorts {
		return append(errs, field.TooMany(path.Child("ports"), len(d.Ports), maxPorts))
	}
	for i, p := range d.Ports {
		errs = append(errs, validatePort(path.Child("ports").Index(i), p)...)
	}
	return errs
}

// validateCIDR also returns the prefix where it can be made out, for the rules
// that compare it with others.
func validateCIDR(path *field.Path, s string) (netip.Prefix, field.ErrorList) {
	if s == "" {
		return netip.Prefix{}, field.ErrorList{field.Required(path, "write a range, such as 203.0.113.0/24 or 203.0.113.9/32")}
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		cure := "not an address range: write one such as 203.0.113.0/24"
		if addr, err := netip.ParseAddr(s); err == nil && addr.Is4() {
			cure = fmt.Sprintf("has no prefix length: write %s/32 for this one address", addr)
		}
		return netip.Prefix{}, field.ErrorList{field.Invalid(path, s, cure)}
	}
	if p.Addr().Is6() {
		return netip.Prefix{}, field.ErrorList{field.Invalid(path, s, "an IPv6 range: the VIP is IPv4, so are its destinations; write one such as 203.0.113.0/24")}
	}
	if p != p.Masked() {
		return p.Masked(), field.ErrorList{field.Invalid(path, s, fmt.Sprintf("has host bits set: write %s", p.Masked()))}
	}
	return p, nil
}

func validatePort(path *field.Path, p Port) field.ErrorList {
	var errs field.ErrorList
	switch p.Protocol {
	case "", "TCP", "UDP", "SCTP":
	default:
		errs = append(errs, field.NotSupported(path.Child("protocol"), p.Protocol, []string{"TCP", "UDP", "SCTP"}))
	}
	valid := func(name string, port *int32) bool {
		if port == nil || 1 <= *port && *port <= 65535 {
			return port != nil
		}
		errs = append(errs, field.Invalid(path.Child(name), *port, "must be between 1 and 65535; leave ports out for every port"))
		return false
	}
	first, last := valid("port", p.Port), valid("endPort", p.EndPort)
	switch {
	case p.EndPort == nil:
	case p.Port == nil:
		errs = append(errs, field.Required(path.Child("port"), "endPort ends the range that port begins: write port too"))
	case first && last && *p.EndPort < *p.Port:
		errs = append(errs, field.Invalid(path.Child("endPort"), *p.EndPort, fmt.Sprintf("lies below port %d: exchange the two", *p.Port)))
	}
	return errs
}

func equal(a, b Destination) bool {
	return a.CIDR == b.CIDR && slices.Equal(a.Except, b.Except) && slices.EqualFunc(a.Ports, b.Ports, func(a, b Port) bool {
		return protocol(a) == protocol(b) && equalPort(a.Port, b.Port) && equalPort(a.EndPort, b.EndPort)
	})
}

func equalPort(a, b *int32) bool { return a == b || a != nil && b != nil && *a == *b }

// protocol with the CRD's default.
func protocol(p Port) string {
	if p.Protocol == "" {
		return "TCP"
	}
	return p.Protocol
}
