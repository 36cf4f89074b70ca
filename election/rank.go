package election

import "hash/fnv"

// score orders the members for a VIP by rendezvous hashing: each VIP has its own
// order, the same on every member, so that the VIPs of a group spread over it.
func score(vip, id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(vip))
	h.Write([]byte{0})
	h.Write([]byte(id))
	// FNV's high bits barely depend on the last bytes, in which names of nodes
	// differ; the finaliser of MurmurHash3 (fmix64) spreads them.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// before is whether a comes before b in the order of candidacy for vip.
func before(vip, a, b string) bool {
	sa, sb := score(vip, a), score(vip, b)
	return sa > sb || sa == sb && a < b
}

// firstChoice is who should hold a VIP that had no holder yet: going through the
// VIPs in order, of the living members with the fewest VIPs the best ranked.
// Ranks alone would often leave a member of three without any of six.
func (m *Machine) firstChoice(vip string) string {
	given := map[string]int{}
	choice := ""
	for _, c := range m.contests {
		choice = ""
		for _, id := range m.members.seats {
			if m.fresh(id) && (choice == "" || given[id] < given[choice] || given[id] == given[choice] && before(c.vip, id, choice)) {
				choice = id
			}
		}
		if c.vip == vip {
			break
		}
		given[choice]++
	}
	return choice
}
