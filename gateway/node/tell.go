package node

import (
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/report"
)

// tell the events that are new since the last apply that succeeded.
func (a *Agent) tell(pods []gateway.Pod, plan gateway.Plan, problems []gateway.Problem) {
	if a.cfg.Teller == nil {
		return
	}
	now := report.Pods(pods, plan, problems)
	a.cfg.Teller.Tell(report.Fresh(a.told, now))
	a.told = now
}

// toldBefore are the events of the saved view: an agent that starts anew has no news
// about pods that it steered before.
func (a *Agent) toldBefore() []report.Event {
	saved, ok := a.view.Saved()
	if a.cfg.Teller == nil || !ok {
		return nil
	}
	local := a.local(saved)
	plan, problems := gateway.Build(local, nil)
	return report.Pods(local.Pods, plan, problems)
}
