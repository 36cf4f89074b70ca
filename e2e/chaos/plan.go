package chaos

import (
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Plan is what happens, without end.
type Plan struct {
	Seed    uint64
	Longest time.Duration // that faults last; the shortest is a hundredth of it
}

// Steps are the same for the same plan. Of the single faults every kind strikes before
// one does again.
func (p Plan) Steps() iter.Seq[Step] {
	return func(yield func(Step) bool) {
		r := rand.New(rand.NewPCG(p.Seed, 0))
		var bag []Kind
		for n := 1; ; n++ {
			s := Step{Number: n, Hold: p.hold(r), Await: r.IntN(2) == 0}
			if r.IntN(5) == 0 {
				s.Faults = storm(r)
			} else {
				if len(bag) == 0 {
					bag = slices.Clone(Kinds)
					r.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
				}
				s.Faults, bag = []Fault{fault(r, bag[0], pick(r))}, bag[1:]
			}
			if !yield(s) {
				return
			}
		}
	}
}

// hold is as often a fraction of a lease as many.
func (p Plan) hold(r *rand.Rand) time.Duration {
	return time.Duration(float64(p.Longest) * math.Pow(100, r.Float64()-1))
}

// pick prefers the holder: most of what can go wrong does there.
func pick(r *rand.Rand) Role {
	if r.IntN(2) == 0 {
		return Holder
	}
	return Roles[1+r.IntN(2)]
}

func fault(r *rand.Rand, k Kind, role Role) Fault {
	f := Fault{Kind: k, Role: role}
	switch rest := others(role); k {
	case OneWay:
		f.Other = rest[r.IntN(len(rest))]
	case Loss:
		f.Percent = 5 + r.IntN(46)
	}
	return f
}

// storm is two or three faults at once on a node each, at most one of which empties a
// kernel: of three, two still know the connections. Pods are not changed meanwhile, nor a
// VIP handed over, for what is to become of them needs traffic, or a standby in step.
func storm(r *rand.Rand) []Fault {
	var faults []Fault
	roles := r.Perm(len(Roles))[:2+r.IntN(2)]
	for _, role := range roles {
		for {
			f := fault(r, Kinds[r.IntN(len(Kinds))], Roles[role])
			if f.ofAll() || f.Kind == Pods || f.Kind == HandOver || f.empties() && slices.ContainsFunc(faults, Fault.empties) {
				continue
			}
			faults = append(faults, f)
			break
		}
	}
	return faults
}
