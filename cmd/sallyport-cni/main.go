// Sallyport-cni is a CNI plugin that comes after all others: it lets no pod start
// before the rules of its node are in place, and changes nothing. Package gate installs it.
package main

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/sallyport/sallyport/gateway/node/gate"
)

// release is set by the linker.
var release = "devel"

// Only a new pod has to wait. A node that waits for its agent is Ready all the same:
// the agent itself needs no CNI, and needs the node.
func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: pass, Check: pass, GC: pass, Status: pass}, version.All,
		"CNI plugin "+gate.Plugin+" "+release)
}

func pass(*skel.CmdArgs) error { return nil }

func add(args *skel.CmdArgs) error {
	var conf types.PluginConf
	var link gate.Link
	if err := errors.Join(json.Unmarshal(args.StdinData, &conf), json.Unmarshal(args.StdinData, &link)); err != nil {
		return types.NewError(types.ErrDecodingFailure, "sallyport: read the configuration: "+err.Error(), "")
	}
	wait, err := time.ParseDuration(link.Wait)
	if err != nil || link.Mark == "" {
		return types.NewError(types.ErrInvalidNetworkConfig, "sallyport: the configuration has no mark or no wait: it is written by Sallyport's agent, delete "+gate.File+" to have it written anew", "")
	}
	if err := version.ParsePrevResult(&conf); err != nil {
		return types.NewError(types.ErrDecodingFailure, "sallyport: read what the plugins before made: "+err.Error(), "")
	}
	if conf.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "sallyport: no plugin comes before this one, which makes no network: put it last in a list", "")
	}
	if err := gate.Mark(link.Mark).Await(wait); err != nil {
		return types.NewError(types.ErrTryAgainLater, "sallyport: since the boot the node's rules are not in place yet, so that the pod could send past them. "+
			"It is tried again. If it stays so look at the node's agent of Sallyport (app.kubernetes.io/component=agent); "+
			"where there is to be none, delete "+gate.File+" on the node", err.Error())
	}
	return types.PrintResult(conf.PrevResult, conf.CNIVersion)
}
