package main

import (
	"errors"
	"log/slog"
	"strings"

	"github.com/sallyport/sallyport/gateway/kube"
	"github.com/sallyport/sallyport/gateway/replica"
)

// peers are those that an entry of --join has looked up in the cluster; the other
// entries are addresses.
func (c *common) peers(join []string, log *slog.Logger) (addrs []string, peers replica.Peers, err error) {
	addrs, inCluster := splitJoin(join)
	switch len(inCluster) {
	case 0:
		return addrs, nil, nil
	case 1:
	default:
		return nil, nil, errors.New("--join: give kube:NAMESPACE/LABELSELECTOR once")
	}
	cluster, err := c.connect("gateway", log)
	if err != nil {
		return nil, nil, err
	}
	peers, err = kube.NewPeers(cluster, inCluster[0], c.stateDir, log)
	return addrs, peers, err
}

// splitJoin tells the entries that begin with kube: from addresses. A label selector
// has commas of its own: what has a = is no address, but goes on with the selector.
func splitJoin(join []string) (addrs, inCluster []string) {
	for _, entry := range join {
		switch {
		case strings.HasPrefix(entry, kube.Join):
			inCluster = append(inCluster, entry)
		case strings.Contains(entry, "=") && len(inCluster) > 0:
			inCluster[len(inCluster)-1] += "," + entry
		default:
			addrs = append(addrs, entry)
		}
	}
	return addrs, inCluster
}
