// Package doctor judges what agents and gateways found on their hosts: settings,
// neighbours and limits that keep, or may keep, Sallyport from its work, each with its
// cure. The checks are a list; each is small and looks at facts only. It is pure.
package doctor

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/gateway"
)

// Severity of a Finding.
type Severity string

// Severities.
const (
	Error   Severity = "error"   // something does not work
	Warning Severity = "warning" // something may not, or not at the next failure
	Info    Severity = "info"    // worth knowing
)

// Finding is one thing found, on one host or of all.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Where    string   `json:"where,omitempty"` // node, "" for all
	Object   string   `json:"object,omitempty"`
	Found    string   `json:"found"`
	Cure     string   `json:"cure,omitempty"`
}

// Host is what one program says of its host.
type Host struct {
	Program   string            `json:"program"`
	Name      string            `json:"name,omitempty"` // a gateway's
	Node      string            `json:"node"`
	Version   string            `json:"version"`
	Netfilter string            `json:"netfilter"`
	Priority  string            `json:"priority,omitempty"` // a gateway's
	Unraised  bool              `json:"unraised,omitempty"` // it is not before others as it was to be
	Viewless  bool              `json:"viewless,omitempty"` // the source has given no view yet, nor was one saved
	Live      bool              `json:"live"`
	Apply     string            `json:"apply,omitempty"` // why the view is not in the kernel
	Problems  []gateway.Problem `json:"problems"`
	VIPs      []VIP             `json:"vips"`
	Kernel    Kernel            `json:"kernel"`
	Paths     []Path            `json:"paths,omitempty"`  // an agent's, to the VIPs
	Audits    []string          `json:"audits,omitempty"` // a gateway's routes whose connections are recorded
	Now       time.Time         `json:"now"`

	// Ahead is how far its clock is before ours, within Doubt; of whoever asked.
	Ahead time.Duration `json:"aheadNanoseconds"`
	Doubt time.Duration `json:"doubtNanoseconds"`
}

// VIP as one gateway sees it.
type VIP struct {
	Addr       netip.Addr `json:"addr"`
	Interface  string     `json:"interface"`
	Holder     string     `json:"holder"`
	Held       bool       `json:"held"`
	Voters     int        `json:"voters"`
	Replicas   int        `json:"replicas"`
	Barred     string     `json:"barred,omitempty"`
	Replicated bool       `json:"replicated"`
	Standbys   []Standby  `json:"standbys,omitempty"`
}

// Standby of a VIP that is held.
type Standby struct {
	Name   string        `json:"name"`
	InStep bool          `json:"inStep"`
	Lag    time.Duration `json:"lagNanoseconds"`
}

// Kernel is what a host's kernel shows.
type Kernel struct {
	Release     string `json:"release"`
	Connections int    `json:"connections"` // tracked now
	Room        int    `json:"room"`        // for so many; 0: not known
	// Uncounted says that connections have no packets and bytes (nf_conntrack_acct=0).
	Uncounted bool `json:"uncounted,omitempty"`
	// Unheard says that connection tracking tells nobody of changes (nf_conntrack_events=0).
	Unheard bool `json:"unheard,omitempty"`
	// Missing is what the kernel has not of what the rules are made of, as it said when tried.
	Missing []string `json:"missing,omitempty"`
	// ARPIgnore by interface, as it is in force.
	ARPIgnore map[string]int `json:"arpIgnore,omitempty"`
	// Bound are the addresses of kube-proxy's own interface, kube-ipvs0.
	Bound []netip.Addr `json:"bound,omitempty"`
	// Earlier are others' chains that translate sources before ours do.
	Earlier []string `json:"earlier,omitempty"`
}

// Path is how large outer packets may be on their way to a VIP and back.
type Path struct {
	To      netip.Addr `json:"to"`
	Device  string     `json:"device"`
	Size    int        `json:"size"`    // that the tunnel sends
	Largest int        `json:"largest"` // of those tried that came back; 0: none
	Error   string     `json:"error,omitempty"`
}

// Silent is a program that did not answer.
type Silent struct {
	Program string `json:"program"`
	Where   string `json:"where"`
	Why     string `json:"why"`
}

// Report is the answer.
type Report struct {
	Findings []Finding `json:"findings"`
	Hosts    int       `json:"hosts"` // programs that answered
	Silent   []Silent  `json:"silent"`
}

// Examine makes every check. What several programs say alike, of a host or of the cluster, is told once.
func Examine(hosts []Host, silent []Silent) Report {
	r := Report{Hosts: len(hosts), Findings: []Finding{}, Silent: append([]Silent{}, silent...)}
	for _, c := range Checks {
		if c.All != nil {
			r.add(c.Name, "", c.All(hosts))
		}
		for _, h := range hosts {
			if c.Host != nil {
				r.add(c.Name, h.Node, c.Host(h))
			}
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(weight[a.Severity], weight[b.Severity]), strings.Compare(a.Where, b.Where), strings.Compare(a.Object, b.Object),
			strings.Compare(a.Check, b.Check), strings.Compare(a.Found, b.Found), strings.Compare(a.Cure, b.Cure))
	})
	r.Findings = slices.Compact(r.Findings)
	return r
}

var weight = map[Severity]int{Error: 0, Warning: 1, Info: 2}

func (r *Report) add(check, where string, found []Finding) {
	for _, f := range found {
		f.Check = check
		if f.Where == "" && !f.everywhere() {
			f.Where = where
		}
		r.Findings = append(r.Findings, f)
	}
}

// Page of the documentation that has an entry for each check.
const Page = "docs/troubleshooting.md"

// Entry is where the page says more of the finding.
func (f Finding) Entry() string { return Page + "#doctor-" + f.Check }

// everywhere tells findings about objects of the cluster, which all hosts have alike.
func (f Finding) everywhere() bool {
	for _, kind := range []string{"EgressRoute ", "Pod ", "Namespace ", "Node "} {
		if strings.HasPrefix(f.Object, kind) {
			return true
		}
	}
	return false
}

// Errors says whether anything does not work.
func (r Report) Errors() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error })
}
