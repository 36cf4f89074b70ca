package lab

import (
	"errors"
	"fmt"
	"time"
)

// PowerCut takes node j from the world in one moment: its links go dark, with no
// carrier loss on any other host, and its programs are killed. What they would say
// on their way out reaches nobody. The time returned is that of the last moment at
// which a frame could pass.
func (l *Lab) PowerCut(j int) (time.Time, error) {
	var errs []error
	for _, port := range l.ports(j) {
		errs = append(errs, l.setPort(port, portDisabled))
	}
	at := time.Now()
	errs = append(errs, l.killPrograms(j))
	l.Options.Log.Info("power cut", "node", NodeName(j))
	return at, errors.Join(errs...)
}

// Restore gives node j its links back, with the kernel state it had. Its programs
// are not started.
func (l *Lab) Restore(j int) error {
	var errs []error
	for _, port := range l.ports(j) {
		errs = append(errs, l.setCarrier(port, true), l.setPort(port, portForwarding))
	}
	l.Options.Log.Info("restored", "node", NodeName(j))
	return errors.Join(errs...)
}

// Reboot gives node j back as after a power-on: links up, an empty kernel with
// what the CNI makes, its pods new ones of the same name and address, no program
// running. Clients in its pods end.
func (l *Lab) Reboot(j int) error {
	errs := []error{l.killPrograms(j), l.unplug(j)}
	var pods []*Pod
	for _, p := range l.Pods() {
		if p.Node == j {
			pods = append(pods, p)
			errs = append(errs, l.unwirePod(p.Name))
		}
	}
	errs = append(errs, l.dropMachine(NodeName(j)), l.buildNode(j))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reboot %s: %w", NodeName(j), err)
	}
	node, err := l.machine(NodeName(j))
	if err != nil {
		return err
	}
	for _, p := range pods {
		errs = append(errs, l.wirePod(node, p))
	}
	l.Options.Log.Info("rebooted", "node", NodeName(j))
	return errors.Join(errs...)
}

// CutOutside takes the carrier from node j's outside interface.
func (l *Lab) CutOutside(j int) error { return l.setCarrier(NodeName(j), false) }

// CutOutsideSilently drops every frame of node j's outside link; its carrier stays.
func (l *Lab) CutOutsideSilently(j int) error { return l.setPort(NodeName(j), portDisabled) }

// CutGossip drops the gossip of node j in both directions and nothing else.
func (l *Lab) CutGossip(j int) error {
	var ports [][]string
	for _, p := range l.ports(j) {
		ports = append(ports, []string{p})
	}
	return l.onSwitch(elements("mute", ports...))
}

// HealGossip ends every CutGossip, and no other fault.
func (l *Lab) HealGossip() error { return l.onSwitch("flush set bridge lab mute\n") }

// CutOneWay drops what node from sends to node to, but not what it hears from it.
func (l *Lab) CutOneWay(from, to int) error {
	return l.onSwitch(elements("cut", l.pairs(from, to)...))
}

// Lose drops that share, in percent from 1 to 100, of what node j sends and of what is
// sent to it, frame by frame at random.
func (l *Lab) Lose(j, percent int) error {
	script := ""
	for _, port := range l.ports(j) {
		for _, way := range []string{"iifname", "oifname"} {
			script += fmt.Sprintf("add rule bridge lab loss %s %q numgen random mod 100 <= %d drop\n", way, port, percent-1)
		}
	}
	return l.onSwitch(script)
}

// Partition divides the nodes: those in different groups do not reach each other,
// on any network. A node in no group is alone. All still reach the router, so that
// two holders would both be heard.
func (l *Lab) Partition(groups ...[]int) error {
	groupOf := map[int]int{}
	for g, nodes := range groups {
		for _, j := range nodes {
			groupOf[j] = g + 1
		}
	}
	var cut [][]string
	for a := 1; a <= l.Options.Nodes; a++ {
		for b := 1; b <= l.Options.Nodes; b++ {
			if a != b && (groupOf[a] == 0 || groupOf[a] != groupOf[b]) {
				cut = append(cut, l.pairs(a, b)...)
			}
		}
	}
	l.Options.Log.Info("partition", "groups", groups)
	return l.onSwitch("flush set bridge lab cut\n" + elements("cut", cut...))
}

// Isolate keeps every node from every other.
func (l *Lab) Isolate() error { return l.Partition() }

// Heal ends every fault made at the switch. Programs and rebooted nodes stay as
// they are.
func (l *Lab) Heal() error {
	errs := []error{l.onSwitch("flush set bridge lab cut\nflush set bridge lab mute\nflush chain bridge lab loss\n")}
	for j := 1; j <= l.Options.Nodes; j++ {
		errs = append(errs, l.Restore(j))
	}
	return errors.Join(errs...)
}

func (l *Lab) pairs(from, to int) [][]string {
	var pairs [][]string
	for i, p := range l.ports(from) {
		pairs = append(pairs, []string{p, l.ports(to)[i]})
	}
	return pairs
}

// Others are the nodes other than j.
func (l *Lab) Others(j int) []int {
	var others []int
	for k := 1; k <= l.Options.Nodes; k++ {
		if k != j {
			others = append(others, k)
		}
	}
	return others
}
