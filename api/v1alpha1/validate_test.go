package v1alpha1

import (
	"fmt"
	"strings"
)

type validationCase struct {
	name string
	// The fields of the spec; "" takes the valid one, "-" leaves the field out.
	vip, namespaces, pods, destinations string
	failClosed, exclusive               string // left out by default
	wrong                               string // part of our message, "" for a valid route
	// The CRD cannot judge label syntax: a LabelSelector's strings have no bounds,
	// and a rule over them exceeds the cost budget by a factor of 100.
	oursOnly bool
}

func (c validationCase) manifest() string {
	var b strings.Builder
	b.WriteString("apiVersion: sallyport.dev/v1alpha1\nkind: EgressRoute\nmetadata: {name: payments}\nspec:\n")
	for _, f := range []struct{ name, value, valid string }{
		{"vip", c.vip, "192.0.2.10"},
		{"namespaceSelector", c.namespaces, "{matchLabels: {team: checkout}}"},
		{"podSelector", c.pods, "-"},
		{"destinations", c.destinations, "[{cidr: 203.0.113.0/24}]"},
		{"failClosed", c.failClosed, "-"},
		{"exclusive", c.exclusive, "-"},
	} {
		value := f.value
		if value == "" {
			value = f.valid
		}
		if value != "-" {
			fmt.Fprintf(&b, "  %s: %s\n", f.name, value)
		}
	}
	return b.String()
}

func many(n int, format string) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(format, i/256, i%256))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func validationCases() []validationCase {
	return []validationCase{
		{name: "valid"},
		{name: "everything", pods: "{matchLabels: {app: pay}}",
			destinations: "[{cidr: 203.0.113.0/24, except: [203.0.113.9/32], ports: [{protocol: TCP, port: 443, endPort: 444}, {protocol: UDP}]}]"},
		{name: "every namespace", namespaces: "{}"},
		{name: "every pod", pods: "{}"},
		{name: "whole internet", destinations: "[{cidr: 0.0.0.0/0}]"},
		{name: "one port range", destinations: "[{cidr: 203.0.113.0/24, ports: [{port: 443, endPort: 443}]}]"},
		{name: "last port", destinations: "[{cidr: 203.0.113.0/24, ports: [{port: 65535}]}]"},
		{name: "same cidr, other ports", destinations: "[{cidr: 203.0.113.0/24, ports: [{port: 443}]}, {cidr: 203.0.113.0/24, ports: [{port: 80}]}]"},
		{name: "most destinations", destinations: many(128, "{cidr: 10.%d.%d.0/24}")},

		{name: "largest route", destinations: largest(), namespaces: "{matchExpressions: [{key: team, operator: In, values: " + many(256, "v%d.%d") + "}]}"},

		{name: "fail open", failClosed: "false", exclusive: "false"},
		{name: "exclusive", exclusive: "true"},
		{name: "exclusive and fail closed", failClosed: "true", exclusive: "true"},
		{name: "exclusive and fail open", failClosed: "false", exclusive: "true", wrong: "remove failClosed: false"},

		{name: "no vip", vip: "-", wrong: "spec.vip: Required"},
		{name: "empty vip", vip: `""`, wrong: "spec.vip: Required"},
		{name: "IPv6 vip", vip: `"2001:db8::1"`, wrong: "VIPs are IPv4"},
		{name: "IPv4 in IPv6 vip", vip: `"::ffff:192.0.2.1"`, wrong: "VIPs are IPv4"},
		{name: "vip with prefix length", vip: "192.0.2.10/32", wrong: "without a prefix length"},
		{name: "vip out of range", vip: "192.0.2.256", wrong: "numbers from 0 to 255"},
		{name: "vip with leading zero", vip: "192.0.2.010", wrong: "not an IP address"},
		{name: "vip with space", vip: `"192.0.2.10 "`, wrong: "not an IP address"},
		{name: "loopback vip", vip: "127.0.0.1", wrong: "neither loopback"},
		{name: "multicast vip", vip: "224.0.0.18", wrong: "unicast"},
		{name: "unspecified vip", vip: "0.0.0.0", wrong: "unicast"},
		{name: "link-local vip", vip: "169.254.1.1", wrong: "link-local"},
		{name: "broadcast vip", vip: "255.255.255.255", wrong: "unicast"},

		{name: "no namespaceSelector", namespaces: "-", wrong: "{} for every namespace"},
		{name: "null namespaceSelector", namespaces: "null", wrong: "{} for every namespace"},
		{name: "In", namespaces: "{matchExpressions: [{key: team, operator: In, values: [a]}]}"},
		{name: "Exists", namespaces: "{matchExpressions: [{key: team, operator: Exists}]}"},
		{name: "In without values", namespaces: "{matchExpressions: [{key: team, operator: In}]}", wrong: "must be specified"},
		{name: "Exists with values", namespaces: "{matchExpressions: [{key: team, operator: Exists, values: [a]}]}", wrong: "may not be specified"},
		{name: "unknown operator", namespaces: "{matchExpressions: [{key: team, operator: Gt, values: [a]}]}", wrong: "not a valid selector operator"},
		{name: "podSelector In without values", pods: "{matchExpressions: [{key: app, operator: In}]}", wrong: "must be specified"},
		{name: "bad label key", namespaces: `{matchLabels: {"a b": c}}`, wrong: "spec.namespaceSelector.matchLabels", oursOnly: true},
		{name: "bad label value", namespaces: `{matchLabels: {team: "a b"}}`, wrong: "spec.namespaceSelector.matchLabels", oursOnly: true},
		{name: "bad expression key", namespaces: `{matchExpressions: [{key: "-x", operator: Exists}]}`, wrong: "spec.namespaceSelector.matchExpressions[0].key", oursOnly: true},
		{name: "bad expression value", pods: `{matchExpressions: [{key: app, operator: In, values: ["a b"]}]}`, wrong: "spec.podSelector.matchExpressions[0].values", oursOnly: true},

		{name: "no destinations", destinations: "-", wrong: "at least one"},
		{name: "empty destinations", destinations: "[]", wrong: "at least one"},
		{name: "too many destinations", destinations: many(129, "{cidr: 10.%d.%d.0/24}"), wrong: "at most 128"},
		{name: "no cidr", destinations: "[{ports: [{port: 443}]}]", wrong: "destinations[0].cidr: Required"},
		{name: "malformed cidr", destinations: "[{cidr: 203.0.113/24}]", wrong: "not an address range"},
		{name: "address for cidr", destinations: "[{cidr: 203.0.113.9}]", wrong: "write 203.0.113.9/32"},
		{name: "host bits", destinations: "[{cidr: 203.0.113.7/24}]", wrong: "write 203.0.113.0/24"},
		{name: "prefix too long", destinations: "[{cidr: 203.0.113.0/33}]", wrong: "not an address range"},
		{name: "prefix with zero", destinations: "[{cidr: 203.0.113.0/024}]", wrong: "not an address range"},
		{name: "IPv6 cidr", destinations: `[{cidr: "2001:db8::/32"}]`, wrong: "an IPv6 range"},
		{name: "IPv4 in IPv6 cidr", destinations: `[{cidr: "::ffff:203.0.113.0/120"}]`, wrong: "an IPv6 range"},
		{name: "same destination twice", destinations: "[{cidr: 203.0.113.0/24, ports: [{port: 1}]}, {cidr: 203.0.113.0/24, ports: [{protocol: TCP, port: 1}]}]", wrong: "the same as destinations[0]"},

		{name: "except outside", destinations: "[{cidr: 203.0.113.0/24, except: [198.51.100.0/25]}]", wrong: "not inside 203.0.113.0/24"},
		{name: "except larger", destinations: "[{cidr: 203.0.113.0/24, except: [203.0.0.0/16]}]", wrong: "not inside 203.0.113.0/24"},
		{name: "except everything", destinations: "[{cidr: 203.0.113.0/24, except: [203.0.113.0/24]}]", wrong: "remove the destination"},
		{name: "except IPv6", destinations: `[{cidr: 203.0.113.0/24, except: ["2001:db8::/32"]}]`, wrong: "an IPv6 range"},
		{name: "except host bits", destinations: "[{cidr: 203.0.113.0/24, except: [203.0.113.9/31]}]", wrong: "write 203.0.113.8/31"},
		{name: "except malformed", destinations: "[{cidr: 203.0.113.0/24, except: [x]}]", wrong: "except[0]"},
		{name: "except empty", destinations: `[{cidr: 203.0.113.0/24, except: [""]}]`, wrong: "except[0]: Required"},
		{name: "too many except", destinations: "[{cidr: 0.0.0.0/0, except: " + many(65, "10.%d.%d.0/24") + "}]", wrong: "at most 64"},

		{name: "port 0", destinations: "[{cidr: 203.0.113.0/24, ports: [{port: 0}]}]", wrong: "between 1 and 65535"},
		{name: "port 65536", destinations: "[{cidr: 203.0.113.0/24, ports: [{port: 65536}]}]", wrong: "between 1 and 65535"},
		{name: "endPort 65536", destinations: "[{cidr: 203.0.113.0/24, ports: [{port: 1, endPort: 65536}]}]", wrong: "between 1 and 65535"},
		{name: "endPort below port", destinations: "[{cidr: 203.0.113.0/24, ports: [{port: 444, endPort: 443}]}]", wrong: "exchange the two"},
		{name: "endPort alone", destinations: "[{cidr: 203.0.113.0/24, ports: [{endPort: 443}]}]", wrong: "write port too"},
		{name: "unknown protocol", destinations: "[{cidr: 203.0.113.0/24, ports: [{protocol: ICMP}]}]", wrong: `supported values: "TCP", "UDP", "SCTP"`},
		{name: "lower case protocol", destinations: "[{cidr: 203.0.113.0/24, ports: [{protocol: tcp, port: 443}]}]", wrong: "supported values"},
		{name: "too many ports", destinations: "[{cidr: 203.0.113.0/24, ports: " + many(33, "{protocol: TCP, port: 1%d%02d}") + "}]", wrong: "at most 32"},
	}
}

// largest is a route at every limit: its rules must stay within the cost that the
// API server allows at run time, too.
func largest() string {
	var all []string
	for i := range maxDestinations {
		all = append(all, fmt.Sprintf("{cidr: %d.0.0.0/8, except: %s, ports: %s}", i+1,
			many(maxExcept, fmt.Sprintf("%d.%%d.%%d.0/24", i+1)), many(maxPorts, "{protocol: TCP, port: 1%d%02d, endPort: 65535}")))
	}
	return "[" + strings.Join(all, ", ") + "]"
}
