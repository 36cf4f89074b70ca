package lab

import (
	"fmt"
	"strings"
)

// Suggest lists commands to try on a lab that is up, as they are to be typed in
// another terminal. Without programs there is less to try.
func (l *Lab) Suggest(programs bool) string {
	lab := beside("lab")
	if l.Options.Prefix != (Options{}).withDefaults().Prefix {
		lab += " --prefix " + l.Options.Prefix
	}
	pods := map[bool]string{} // by whether selected
	for _, p := range l.Pods() {
		if s := p.Annotations[RoutesAnnotation] != ""; pods[s] == "" {
			pods[s] = p.Name
		}
	}
	var b strings.Builder
	try := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "  # %s\n  %s\n", what, fmt.Sprintf(format, args...))
	}
	try("nodes, programs, who has the VIP, pods", "%s status", lab)
	for _, selected := range []bool{true, false} {
		if pod := pods[selected]; pod != "" {
			try("as whom the partner sees this pod", "%s ask %s", lab, pod)
		}
	}
	if programs {
		if pod := pods[false]; pod != "" {
			try("select it, and ask again", "%s annotate %s payments", lab, pod)
		}
		try("a gateway's own view", "ip netns exec %s %s status", l.FullName("n1"), l.Options.Binary)
		try("kill a gateway (best the VIP's holder)", "%s kill gateway 1", lab)
		try("and start it again", "%s start gateway 1", lab)
		try("a node's links dark, its programs killed", "%s power-cut 2", lab)
		try("give it back", "%s reboot 2; %[1]s start gateway 2; %[1]s start agent 2", lab)
	}
	try("a node's rules", "ip netns exec %s nft list ruleset", l.FullName("n1"))
	try("whom the router takes for the VIP's holder", "ip netns exec %s ip neigh show %s", l.FullName(Router), l.Options.VIPs[0])
	try("all faults there are", "%s --help", lab)
	return b.String()
}
