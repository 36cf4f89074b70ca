package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/gossip"
	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/gateway/kube"
	"github.com/sallyport/sallyport/gateway/replica"
	"github.com/sallyport/sallyport/snat"
)

func gatewayCommand() *cobra.Command {
	var c common
	var auditing auditFlags
	var replicas int
	var gossipPort, flowsPort, zone uint16
	var replicate, fast bool
	var handover time.Duration
	var join, members []string
	var name, keyFile, timing, urgency, nodePorts, allowlist string
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Take part in holding the VIPs and translate the traffic of selected pods",
		Long: `Runs on every gateway node. The replicas elect a holder for each VIP; the holder
puts the address on its interface and translates what the nodes' agents send it.
A VIP moves within a lease of its holder's death, and a quorum of the replicas
(2 of 3) must be alive.

Needs root or NET_ADMIN, NET_RAW and SYS_NICE. When it stops (SIGTERM) it hands its VIPs over,
without losing a connection where another gateway is fit, and leaves its rules; "sallyport cleanup" removes them.`,
		Example: `  sallyport gateway --node-name n1 --node-ip 192.0.2.1 --vip 192.0.2.10@eth0 --replicas 3 \
    --join 192.0.2.1,192.0.2.2,192.0.2.3 --gossip-key-file key --source dir:/etc/sallyport`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd)
			if err != nil {
				return err
			}
			r, err := c.resolve("gateway", "", log)
			errs := []error{err}
			if len(c.vips) == 0 {
				errs = append(errs, errors.New("--vip is missing: give at least one address to hold, such as 192.0.2.10@eth0"))
			}
			if replicas < 1 {
				errs = append(errs, fmt.Errorf("--replicas %d: give how many gateways there are, normally 3", replicas))
			}
			if _, ok := election.Profiles[timing]; !ok {
				errs = append(errs, fmt.Errorf("--timing %s: choose default, fast or wan", timing))
			}
			way, err := urgencyOf(urgency, timing)
			errs = append(errs, err)
			if gossipPort == 0 {
				errs = append(errs, errors.New("--gossip-port 0: give a port that the others can reach, the same on each"))
			}
			if replicate && (flowsPort == 0 || flowsPort == gossipPort) {
				errs = append(errs, fmt.Errorf("--flows-port %d: give a port that is not --gossip-port's, the same on each; or --replicate=false", flowsPort))
			}
			if !replicate {
				flowsPort = 0
			}
			if handover <= 0 {
				errs = append(errs, fmt.Errorf("--handover-timeout %v: give more than zero, normally 5s", handover))
			}
			if zone == 0 {
				errs = append(errs, errors.New("--conntrack-zone 0 is the host's own: give a number from 1 to 65535"))
			}
			if name == "" {
				name = c.nodeName
			}
			recorded, err := auditing.config(name, replicate)
			errs = append(errs, err)
			join, peers, err := c.peers(join, log)
			errs = append(errs, err)
			ports, err := portRange(nodePorts)
			errs = append(errs, err)
			var keys [][]byte
			if keyFile == "" {
				errs = append(errs, errors.New("--gossip-key-file is missing: make one with: head -c 32 /dev/urandom | base64 > key"))
			} else {
				if keys, err = gossip.LoadKeys(keyFile); err != nil {
					errs = append(errs, fmt.Errorf("--gossip-key-file: %w", err))
				}
			}
			if err := errors.Join(errs...); err != nil {
				return err
			}
			var reporter replica.Reporter
			if c.source == "kube" {
				reporter = kube.NewStatus(c.cluster, kube.NewEvents(c.cluster, "gateway", c.nodeName, log), log)
			}
			gateway, err := replica.New(cmd.Context(), replica.Config{
				Version: version(), NodeName: c.nodeName, NodeIP: r.nodeIP, VIPs: r.vips, Replicas: replicas, Members: members, Timing: timing, Priority: way,
				Peers: peers, Reporter: reporter, Allowlist: allowlist,
				Gossip: gossip.Config{
					Name: name, Bind: netip.AddrPortFrom(r.nodeIP, gossipPort), Join: join, Keys: keys, Log: log,
				},
				KeyFile:  keyFile,
				SNAT:     snat.Config{Tunnel: r.tunnel, Zone: zone, NodePorts: ports},
				Internal: r.internal, Netfilter: c.netfilter, HTTP: c.http, TokenFile: c.tokenFile, StateDir: filepath.Clean(c.stateDir),
				FlowsPort: flowsPort, Audit: recorded, HandoverTimeout: handover, FastPath: fast,
			}, r.source, log)
			if err != nil {
				return err
			}
			return gateway.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	c.register(f, "127.0.0.1:9871",
		"address to hold: ADDR[@INTERFACE][,via=INSIDE[@INTERFACE]] (repeatable); without @INTERFACE the one whose subnet holds it")
	f.IntVar(&replicas, "replicas", 3, "how many gateways there are, the same on each; a quorum is more than half of it")
	f.StringSliceVar(&join, "join", nil,
		"addresses of all gateways, ADDR[:PORT], separated by commas; or kube:NAMESPACE/LABELSELECTOR, the nodes that those pods are on")
	f.StringVar(&name, "name", "", "name of this gateway among the gateways, the same after a restart; default --node-name")
	f.StringSliceVar(&members, "members", nil,
		"names of all gateways, separated by commas, the same on each: nobody else has a vote; without, see --join")
	f.StringVar(&keyFile, "gossip-key-file", "", "file with the gossip key, one a line: the first encrypts, all decrypt")
	f.Uint16Var(&gossipPort, "gossip-port", 7964, "UDP and TCP port of the gossip")
	f.BoolVar(&replicate, "replicate", true, "keep the connections of every VIP in the kernels of all gateways, so that they survive a failover")
	f.Uint16Var(&flowsPort, "flows-port", 7965, "TCP port that connections are replicated over, the same on all gateways")
	f.DurationVar(&handover, "handover-timeout", 5*time.Second,
		"how long a VIP waits for a gateway that is fit to take it, when this one stops or is asked to hand it over")
	f.StringVar(&urgency, "priority", "auto", "how the election gets before other programs: nice, realtime (SCHED_RR), or auto: realtime with --timing fast, else nice")
	f.StringVar(&timing, "timing", "default", "how soon a failover begins, the same on all gateways: "+profiles())
	f.Uint16Var(&zone, "conntrack-zone", 51, "connection-tracking zone of translated connections")
	f.StringVar(&allowlist, "allowlist-listen", "", "address to serve /allowlist on to partners, and nothing else, such as 192.0.2.1:9873; without, it is on --http only")
	f.BoolVar(&fast, "fast-path", false,
		"established connections of other nodes' pods go beside netfilter on this gateway, which decides about a packet of each direction in every second. Needs Linux 6.6 and CAP_BPF")
	auditing.register(f)
	f.StringVar(&nodePorts, "node-ports", "30000-32767", "Kubernetes' NodePort range, kept out of the source ports used; none for none")
	return cmd
}

// urgencyOf is what --priority means: a lease of fast does not outlast what others may
// compute for before a program comes to its turn that is only nice.
func urgencyOf(flag, timing string) (priority.Way, error) {
	switch way := priority.Way(flag); {
	case way == priority.Nice, way == priority.RealTime:
		return way, nil
	case flag != "auto":
		return "", fmt.Errorf("--priority %s: choose auto, nice or realtime", flag)
	case timing == "fast":
		return priority.RealTime, nil
	}
	return priority.Nice, nil
}

// profiles lists the timing profiles with their leases, the shortest first.
func profiles() string {
	names := make([]string, 0, len(election.Profiles))
	for name := range election.Profiles {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return int(election.Profiles[a].Lease - election.Profiles[b].Lease) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s (lease %v)", name, election.Profiles[name].Lease)
	}
	return strings.Join(names, ", ")
}
