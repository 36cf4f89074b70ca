package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/e2e/lab"
)

// programCommands are `lab start|stop|kill|pause|continue gateway|agent NODE`.
func programCommands(prefix *string) []*cobra.Command {
	act := func(verb, short string, do func(*lab.Lab, lab.Role, int) error) *cobra.Command {
		return &cobra.Command{
			Use: verb + " gateway|agent NODE", Short: short, Args: cobra.ExactArgs(2),
			RunE: func(_ *cobra.Command, args []string) error {
				role := lab.Role(args[0])
				if role != lab.Gateway && role != lab.Agent {
					return fmt.Errorf("%s: %q is neither gateway nor agent", verb, args[0])
				}
				return attached(*prefix, func(l *lab.Lab) error {
					j, err := nodeNumber(l, args[1])
					if err != nil {
						return err
					}
					return do(l, role, j)
				})
			},
		}
	}
	running := func(do func(*lab.Program) error) func(*lab.Lab, lab.Role, int) error {
		return func(l *lab.Lab, role lab.Role, j int) error {
			p, err := l.Program(role, j)
			if err != nil {
				return err
			}
			return do(p)
		}
	}
	return []*cobra.Command{
		act("start", "Start a program", func(l *lab.Lab, role lab.Role, j int) error {
			_, err := l.Start(role, j)
			return err
		}),
		act("stop", "Stop a program (SIGTERM)", running((*lab.Program).Stop)),
		act("kill", "Kill a program (SIGKILL)", running((*lab.Program).Kill)),
		act("pause", "Stop a program where it is (SIGSTOP)", running((*lab.Program).Pause)),
		act("continue", "Let a paused program go on (SIGCONT)", running((*lab.Program).Continue)),
	}
}

func faultCommands(prefix *string) []*cobra.Command {
	onNode := func(verb, short string, do func(*lab.Lab, int) error) *cobra.Command {
		return &cobra.Command{
			Use: verb + " NODE", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				return attached(*prefix, func(l *lab.Lab) error {
					j, err := nodeNumber(l, args[0])
					if err != nil {
						return err
					}
					return do(l, j)
				})
			},
		}
	}
	onLab := func(use, short string, args cobra.PositionalArgs, do func(*lab.Lab, []string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: args,
			RunE: func(_ *cobra.Command, args []string) error {
				return attached(*prefix, func(l *lab.Lab) error { return do(l, args) })
			},
		}
	}
	return []*cobra.Command{
		onNode("power-cut", "Links dark and programs killed, in one moment", func(l *lab.Lab, j int) error {
			_, err := l.PowerCut(j)
			return err
		}),
		onNode("restore", "Give a node its links back", (*lab.Lab).Restore),
		onNode("reboot", "Give a node back with an empty kernel and new pods", (*lab.Lab).Reboot),
		onNode("cut-outside", "Take the carrier from a node's outside link", (*lab.Lab).CutOutside),
		onNode("cut-silently", "Drop all frames of a node's outside link", (*lab.Lab).CutOutsideSilently),
		onNode("cut-gossip", "Drop a node's gossip only", (*lab.Lab).CutGossip),
		onLab("partition GROUP...", "Divide the nodes: partition 1 2,3 (no group: all alone)", cobra.ArbitraryArgs, partition),
		onLab("heal", "End every fault of links", cobra.NoArgs, func(l *lab.Lab, _ []string) error { return l.Heal() }),
		onLab("annotate POD ROUTES", "Opt a pod in to routes (a,b); \"\" opts out", cobra.ExactArgs(2),
			func(l *lab.Lab, args []string) error { return l.Annotate(args[0], args[1]) }),
	}
}

func partition(l *lab.Lab, args []string) error {
	var groups [][]int
	for _, arg := range args {
		var group []int
		for name := range strings.SplitSeq(arg, ",") {
			j, err := nodeNumber(l, name)
			if err != nil {
				return err
			}
			group = append(group, j)
		}
		groups = append(groups, group)
	}
	return l.Partition(groups...)
}

// nodeNumber takes "1" and "n1".
func nodeNumber(l *lab.Lab, arg string) (int, error) {
	j, err := strconv.Atoi(strings.TrimPrefix(arg, "n"))
	if err != nil || j < 1 || j > l.Options.Nodes {
		return 0, fmt.Errorf("node %q: there are n1 to n%d", arg, l.Options.Nodes)
	}
	return j, nil
}

func statusCommand(prefix *string) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Nodes, programs, who has the VIP", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return attached(*prefix, func(l *lab.Lab) error {
				w := cmd.OutOrStdout()
				for j := 1; j <= l.Options.Nodes; j++ {
					fmt.Fprintf(w, "n%d  %-12s", j, l.NodeIP(j))
					for _, role := range []lab.Role{lab.Gateway, lab.Agent} {
						fmt.Fprintf(w, "  %s %s", role, state(l, role, j))
					}
					fmt.Fprintln(w)
				}
				for _, vip := range l.Options.VIPs {
					holders, err := l.Holders(vip)
					if err != nil {
						return err
					}
					fmt.Fprintf(w, "%s is an address of %s\n", vip, nodeNames(holders))
				}
				for _, p := range l.Pods() {
					fmt.Fprintf(w, "%-10s %-13s on n%d  %s\n", p.Name, p.Addr, p.Node, p.Annotations[lab.RoutesAnnotation])
				}
				return nil
			})
		},
	}
}

func askCommand(prefix *string) *cobra.Command {
	return &cobra.Command{
		Use: "ask POD", Short: "As whom the partner sees a pod, at each of its two addresses", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return attached(*prefix, func(l *lab.Lab) error {
				if _, err := l.Pod(args[0]); err != nil {
					return err
				}
				for _, at := range []netip.Addr{lab.PartnerAddr, lab.PublicAddr} {
					as, err := l.SeenAs(args[0], at, 2*time.Second)
					if err != nil {
						fmt.Fprintf(cmd.OutOrStdout(), "%s at %-12s no answer\n", args[0], at)
						continue
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%s at %-12s seen as %s\n", args[0], at, as)
				}
				return nil
			})
		},
	}
}

func state(l *lab.Lab, role lab.Role, j int) string {
	if role == lab.Gateway && !slices.Contains(l.Options.GatewayNodes, j) {
		return "-"
	}
	p, err := l.Program(role, j)
	if err != nil || !p.Alive() {
		return "ended"
	}
	if _, err := l.Status(role, j); err != nil {
		return fmt.Sprintf("pid %d silent", p.Pid)
	}
	return fmt.Sprintf("pid %d", p.Pid)
}

func nodeNames(nodes []int) string {
	var names []string
	for _, j := range nodes {
		names = append(names, lab.NodeName(j))
	}
	if names == nil {
		return "no node"
	}
	return strings.Join(names, " and ")
}
