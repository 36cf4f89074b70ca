package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/kube"
	"github.com/sallyport/sallyport/gateway/node"
)

func agentCommand() *cobra.Command {
	var c common
	var podRanges []string
	var syn node.SYNRetry
	var first firstPackets
	var fast bool
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Steer the traffic of this node's selected pods to the VIPs",
		Long: `Runs on every node with pods. Packets of selected pods to a route's destinations
go through a tunnel to whichever gateway holds the route's VIP, or nowhere.

Needs root or NET_ADMIN and NET_RAW. When it stops its rules stay; "sallyport cleanup" removes them.`,
		Example: `  sallyport agent --node-name n1 --node-ip 192.0.2.1 --source dir:/etc/sallyport --http 127.0.0.1:9872`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd)
			if err != nil {
				return err
			}
			r, err := c.resolve("agent", c.nodeName, log)
			ranges, rangesErr := prefixes("--pod-cidr", podRanges)
			waiting, waitingErr := first.config()
			if err := errors.Join(err, rangesErr, waitingErr); err != nil {
				return err
			}
			var teller node.Teller
			if c.source == "kube" {
				teller = kube.NewEvents(c.cluster, "agent", c.nodeName, log)
			}
			agent, err := node.New(cmd.Context(), node.Config{
				Version: version(), NodeName: c.nodeName, NodeIP: r.nodeIP, VIPs: r.vips, Tunnel: r.tunnel,
				Internal: r.internal, PodRanges: ranges, Netfilter: c.netfilter, HTTP: c.http, TokenFile: c.tokenFile, StateDir: c.stateDir,
				Teller: teller, SYNRetry: syn, FastPath: fast, Gate: waiting,
			}, r.source, log)
			if err != nil {
				return err
			}
			return agent.Run(cmd.Context())
		},
	}
	c.register(cmd.Flags(), "127.0.0.1:9872",
		"VIP with an inside address, as the gateways have it: ADDR,via=INSIDE (repeatable; others need no flag)")
	first.register(cmd.Flags())
	cmd.Flags().BoolVar(&first.gate, "cni-gate", true, "after a boot no pod starts before the node's rules are in place; false removes what an earlier agent installed for that. Needs --cni-conf-dir")
	cmd.Flags().DurationVar(&syn.After, "syn-retry", 0,
		"connections of selected pods to their routes' destinations, begun while a VIP moves, try again after this time instead of a second: 50ms to 1s, longer than a round trip to the partners; 0 is off. Needs Linux 6.1, cgroup v2 and CAP_BPF")
	cmd.Flags().StringVar(&syn.CGroup, "cgroup", "/sys/fs/cgroup", "folder where the node's cgroup v2 is mounted, for --syn-retry")
	cmd.Flags().BoolVar(&fast, "fast-path", false,
		"established connections of selected pods go beside netfilter on this node, which decides about a packet of each in every second. Needs Linux 6.6 and CAP_BPF")
	cmd.Flags().StringSliceVar(&podRanges, "pod-cidr", nil,
		"ranges that this node's pods send from, separated by commas; default: the podCIDRs of its Node object")
	return cmd
}
