package cluster

import (
	"context"
	"errors"
	"path/filepath"
)

// startControllers starts what acts on the objects. The controller manager exits if it
// comes before the API server has made its roles.
func (a *APIServer) startControllers(ctx context.Context, controllers, scheduler user) error {
	pki := a.ca.file
	forControllers, forScheduler := filepath.Join(a.Dir, "controllers.kubeconfig"), filepath.Join(a.Dir, "scheduler.kubeconfig")
	if err := errors.Join(controllers.kubeconfig(forControllers, a.URL, a.CAFile), scheduler.kubeconfig(forScheduler, a.URL, a.CAFile)); err != nil {
		return err
	}
	err := a.run(ControllerManager, "--kubeconfig", forControllers, "--leader-elect=false",
		"--authentication-kubeconfig", forControllers, "--authorization-kubeconfig", forControllers,
		"--service-account-private-key-file", pki("sa.key"), "--root-ca-file", pki("ca.crt"), "--use-service-account-credentials",
		"--allocate-node-cidrs=false", "--cluster-signing-cert-file", pki("ca.crt"), "--cluster-signing-key-file", pki("ca.key"),
		"--node-monitor-period", "1s", "--node-monitor-grace-period", "12s")
	if err != nil {
		return err
	}
	err = a.run(Scheduler, "--kubeconfig", forScheduler, "--leader-elect=false",
		"--authentication-kubeconfig", forScheduler, "--authorization-kubeconfig", forScheduler)
	if err != nil {
		return err
	}
	_, err = a.Kubectl(ctx, "", "create", "clusterrolebinding", "kube-proxy", "--clusterrole", "system:node-proxier", "--user", "system:kube-proxy")
	return err
}
