package k8s

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
)

// TestOtherCNIs is the first day and the last with the network plugins of others, and a
// failover between.
func TestOtherCNIs(t *testing.T) {
	for _, c := range []struct {
		cni  *cluster.CNI
		mode string // of kube-proxy
	}{
		{cluster.Flannel("vxlan"), "iptables"},
		{cluster.Flannel("host-gw"), "nftables"},
	} {
		t.Run(c.cni.Name+", kube-proxy in mode "+c.mode, func(t *testing.T) {
			w := start(t, cluster.Options{CNI: c.cni, ProxyMode: c.mode})
			firstDayAndLast(w)
		})
	}
}

var _ = time.Second
