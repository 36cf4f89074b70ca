package election

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestTranscripts plays the stories in testdata; -rewrite writes them anew. Times
// are true time since the last command.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &story{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			if s.w != nil {
				s.from = s.w.now
			}
			s.do(t, d)
			if s.w != nil && s.w.broken != "" {
				d.Fatalf(t, "%s", s.w.broken)
			}
			if s.out.Len() == 0 {
				return "ok\n"
			}
			return s.out.String()
		})
	})
}

type story struct {
	w     *world
	out   strings.Builder
	from  time.Duration
	trace bool // messages too, but for the rounds of a holder that is followed
}

func (s *story) tell(format string, args ...any) {
	fmt.Fprintf(&s.out, "%4dms  ", (s.w.now - s.from).Milliseconds())
	fmt.Fprintf(&s.out, format+"\n", args...)
}

func (s *story) do(t *testing.T, d *datadriven.TestData) {
	switch d.Cmd {
	case "group":
		replicas, profile, vips := 3, "default", 1
		d.MaybeScanArgs(t, "replicas", &replicas)
		d.MaybeScanArgs(t, "profile", &profile)
		d.MaybeScanArgs(t, "vips", &vips)
		s.w = newWorld(1, replicas, []string{"192.0.2.10", "192.0.2.11", "192.0.2.12"}[:vips], Profiles[profile])
		s.w.did = s.did
	case "add":
		n := s.w.add(d.CmdArgs[0].Key, len(s.w.nodes))
		n.cfg.Replicas = s.w.nodes[0].cfg.Replicas
		d.MaybeScanArgs(t, "replicas", &n.cfg.Replicas)
		profile := ""
		if d.MaybeScanArgs(t, "profile", &profile); profile != "" {
			n.cfg.Timing = Profiles[profile]
		}
	case "vips": // of a node that has not started
		n := s.node(t, d, 0)
		n.cfg.VIPs = nil
		for _, vip := range d.CmdArgs[1:] {
			n.cfg.VIPs = append(n.cfg.VIPs, vip.Key)
		}
	case "trace":
		s.trace = d.CmdArgs[0].Key == "on"
	case "run":
		pass, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		s.w.run(pass)
	case "mend":
		clear(s.w.cut)
	case "cut":
		both := !d.HasArg("oneway")
		from, to := s.node(t, d, 0), s.node(t, d, 1)
		s.w.cut[[2]string{from.cfg.ID, to.cfg.ID}] = true
		s.w.cut[[2]string{to.cfg.ID, from.cfg.ID}] = both
	case "holders":
		for _, vip := range s.w.vips {
			var ids []string
			for _, n := range s.w.holders(vip) {
				ids = append(ids, n.cfg.ID)
			}
			fmt.Fprintf(&s.out, "%s: %s\n", vip, strings.Join(ids, " "))
		}
	case "status":
		for _, n := range s.w.nodes {
			if n.m == nil || n.paused {
				continue
			}
			for _, st := range n.m.Status() {
				fmt.Fprintf(&s.out, "%s: %s %s, holder %q, term %d, voters %v of %d", n.cfg.ID, st.VIP, st.Role, st.Holder, st.Term, st.Voters, st.Quorum)
				if st.Why != "" {
					fmt.Fprintf(&s.out, " (%s)", st.Why)
				}
				fmt.Fprintln(&s.out)
			}
		}
	case "problems":
		for _, n := range s.w.nodes {
			if n.m != nil {
				for _, p := range n.m.Problems() {
					fmt.Fprintf(&s.out, "%s says: %s\n", n.cfg.ID, p)
				}
			}
		}
	default:
		for i := range d.CmdArgs {
			if n := s.find(d.CmdArgs[i].Key); n != nil {
				s.act(t, d, n)
			}
		}
	}
}

func (s *story) act(t *testing.T, d *datadriven.TestData, n *node) {
	vip, reason := s.w.vips[0], "asked to"
	d.MaybeScanArgs(t, "vip", &vip)
	d.MaybeScanArgs(t, "reason", &reason)
	switch d.Cmd {
	case "start":
		n.start()
	case "kill":
		n.kill(false)
	case "powercut":
		n.kill(true)
	case "stop":
		n.pause()
	case "continue":
		n.resume()
	case "resign":
		n.do(func(m *Machine, now time.Duration) Ready { return m.Resign(now, vip, reason) })
	case "leave":
		n.do(func(m *Machine, now time.Duration) Ready { return m.ResignAll(now, reason) })
	case "handover":
		to := ""
		d.ScanArgs(t, "to", &to)
		n.do(func(m *Machine, now time.Duration) Ready { return m.Offer(now, vip) })
		s.w.run(2 * time.Millisecond)
		n.do(func(m *Machine, now time.Duration) Ready {
			r, err := m.HandOver(now, vip, to)
			if err != nil {
				s.tell("%s: %v", n.cfg.ID, err)
			}
			return r
		})
	case "ineligible":
		n.do(func(m *Machine, now time.Duration) Ready { return m.SetEligible(now, vip, false, reason) })
	case "eligible":
		n.do(func(m *Machine, now time.Duration) Ready { return m.SetEligible(now, vip, true, "") })
	default:
		d.Fatalf(t, "no command %s", d.Cmd)
	}
}

func (s *story) find(id string) *node {
	if i := slices.IndexFunc(s.w.nodes, func(n *node) bool { return n.cfg.ID == id }); i >= 0 {
		return s.w.nodes[i]
	}
	return nil
}

func (s *story) node(t *testing.T, d *datadriven.TestData, i int) *node {
	n := s.find(d.CmdArgs[i].Key)
	if n == nil {
		d.Fatalf(t, "no node %s", d.CmdArgs[i].Key)
	}
	return n
}

// did tells what a member did: leases but not their renewals, changes of the
// holder, and with trace the messages but for heartbeats and their answers.
func (s *story) did(n *node, r Ready) {
	for _, l := range r.Leases {
		if l.Until == 0 {
			s.tell("%s lets go of %s", n.cfg.ID, l.VIP)
		}
	}
	for _, tr := range r.Transitions {
		to, from := tr.To, tr.From
		if to == "" {
			to = "nobody"
		}
		if from == "" {
			from = "nobody"
		}
		if tr.To == n.cfg.ID && tr.From != tr.To {
			s.tell("%s holds %s in term %d: %s", n.cfg.ID, tr.VIP, tr.Term, tr.Reason)
		} else {
			s.tell("%s sees %s go from %s to %s in term %d: %s", n.cfg.ID, tr.VIP, from, to, tr.Term, tr.Reason)
		}
	}
	if !s.trace {
		return
	}
	for _, out := range r.Send {
		to := out.To
		if to == "" {
			to = "all"
		}
		for _, e := range out.Message.Entries {
			if e.Kind == Heartbeat || e.Kind == Ack {
				continue
			}
			wait := ""
			if e.Wait > 0 {
				wait = fmt.Sprintf(", wait %dms", e.Wait.Milliseconds())
			}
			s.tell("  %s → %s: %s %s, term %d%s", n.cfg.ID, to, e.Kind, e.VIP, e.Term, wait)
		}
	}
}
