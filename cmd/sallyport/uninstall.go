package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sallyport/sallyport/gateway/kube/uninstall"
)

func uninstallCommand() *cobra.Command {
	var cfg uninstall.Config
	var kubeconfig string
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take gateways and agents off a cluster and wait until every node is clean",
		Long: `What the chart runs before "helm uninstall" deletes a release. It deletes the
gateways' StatefulSet and the agents' DaemonSet, and waits until the pods of the
cleanup DaemonSet are ready on every node. Nodes that are not ready are named and
left. Exit status 1 when another node is not clean in time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd)
			if err != nil {
				return err
			}
			for flag, value := range map[string]string{"namespace": cfg.Namespace, "gateway": cfg.Gateway, "agent": cfg.Agent, "cleanup": cfg.Cleanup} {
				if value == "" {
					err = errors.Join(err, fmt.Errorf("--%s is missing: give the name as in the release", flag))
				}
			}
			if err != nil {
				return err
			}
			api := rest.InClusterConfig
			if kubeconfig != "" {
				api = func() (*rest.Config, error) { return clientcmd.BuildConfigFromFlags("", kubeconfig) }
			}
			config, err := api()
			if err != nil {
				return fmt.Errorf("read how to reach the API server: %w", err)
			}
			config.UserAgent = "sallyport-uninstall/" + version()
			u, err := uninstall.New(config, cfg, log)
			if err != nil {
				return err
			}
			return u.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Namespace, "namespace", "", "namespace of the release")
	f.StringVar(&cfg.Gateway, "gateway", "", "StatefulSet of the gateways")
	f.StringVar(&cfg.Agent, "agent", "", "DaemonSet of the agents")
	f.StringVar(&cfg.Cleanup, "cleanup", "", "DaemonSet whose pods clean a node before they are ready")
	f.DurationVar(&cfg.Timeout, "timeout", 4*time.Minute, "how long the nodes have to become clean")
	f.DurationVar(&cfg.AbsentAfter, "absent-after", 45*time.Second, "how long a node that is not ready is waited for")
	f.StringVar(&kubeconfig, "kubeconfig", "", "file that says how to reach the API server; without it, as a pod of the cluster")
	return cmd
}
