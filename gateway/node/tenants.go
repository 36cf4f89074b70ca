package node

import (
	"time"

	"github.com/sallyport/sallyport/gateway"
)

// tenants gives the node's pods with the addresses that they still live behind.
func (a *Agent) tenants(pods []gateway.Pod) []gateway.Pod {
	network := a.wiring.Follow(gateway.AddrsOf(pods))
	network.Closed = a.gate.Closed()
	s := a.tenancy.Settle(pods, network, a.view.Live(), time.Now())
	for _, t := range s.Left {
		a.log.Info("the pod's interface or route is gone, its address is nobody's until the API shows whose", "address", t.Addr, "pod", t.Pod)
	}
	for _, t := range s.Back {
		a.log.Info("the address is the pod's again", "address", t.Addr, "pod", t.Pod)
	}
	if s.Again > 0 {
		time.AfterFunc(s.Again, a.loop.Kick)
	}
	return s.Pods
}
