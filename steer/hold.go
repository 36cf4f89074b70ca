package steer

import (
	"github.com/sallyport/sallyport/gateway"
	nf "github.com/sallyport/sallyport/netfilter"
)

const (
	held      = "held"
	exclusive = "exclusive"
	known     = "known"
)

// hold is what becomes of packets that no route has taken: those of the node's pods
// that nobody knows yet wait outside, and those that only others may send end. Both
// are dropped before the connection is confirmed, which happens on the way out
// (net/netfilter/nf_conntrack_proto.c), so that no entry of a path not chosen is left
// and the next try is judged anew; and before any NAT.
type hold struct {
	sets        []nf.Set
	classifiers []nf.Classifier
	rules       []nf.Rule // at the end of the steering chain
	chains      []nf.Chain
}

func holdOf(plan gateway.Plan, h gateway.Hold) hold {
	const found = 1
	waits, only := gateway.Held(held, plan, found), gateway.Exclusive(exclusive, plan, found)
	out := hold{sets: []nf.Set{{Name: known, Addrs: h.Known, Frees: true}}}
	drop := func(c nf.Classifier, match nf.Match, counter string) []nf.Rule {
		if len(c.Others) == 0 {
			return nil
		}
		out.classifiers = append(out.classifiers, c)
		out.chains = append(out.chains, nf.Chain{Name: counter, Rules: []nf.Rule{{Count: counter, Action: nf.Drop{}}}})
		return []nf.Rule{{Match: match, Action: nf.Classify{By: c.Name, To: map[uint32]string{found: counter}}}}
	}
	unknown := drop(waits, nf.Match{NotSrcSet: known}, Unknown)
	others := drop(only, nf.Match{}, NotSelected)
	if len(unknown) == 0 && len(others) == 0 {
		return out
	}
	for _, r := range h.Ranges {
		out.rules = append(out.rules, nf.Rule{Match: nf.Match{SrcNet: r}, Action: nf.Goto{Chain: "pods"}})
	}
	if len(others) > 0 {
		out.rules = append(out.rules, nf.Rule{Match: nf.Match{SrcSet: known}, Action: nf.Goto{Chain: "pods"}, Why: "wherever its address is from"})
	}
	for _, r := range h.Told {
		if len(others) == 0 {
			break
		}
		set := "pods-of-" + r.Namespace
		out.sets = append(out.sets, nf.Set{Name: set, Addrs: r.Addrs})
		last := &out.chains[len(out.chains)-1].Rules // of those that only others may send
		*last = append([]nf.Rule{{Match: nf.Match{SrcSet: set}, Count: NotSelectedOf(r.Namespace)}}, *last...)
	}
	out.chains = append([]nf.Chain{{Name: "pods", Rules: append(unknown, others...)}}, out.chains...)
	return out
}
