// Package uninstall takes gateways and agents off a cluster before their release
// goes: it deletes both and waits until the pods of a DaemonSet, which clean a node
// before they are ready, are so on every node that answers.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Config says what is uninstalled.
type Config struct {
	Namespace string
	Gateway   string // StatefulSet
	Agent     string // DaemonSet
	Cleanup   string // DaemonSet, already made
	// Timeout is how long the nodes have.
	Timeout time.Duration
	// AbsentAfter is how long a node that is not ready is waited for.
	AbsentAfter time.Duration
	// Interval between two looks; 0 is a second.
	Interval time.Duration
}

// Uninstall is one run.
type Uninstall struct {
	cfg  Config
	apps *rest.RESTClient
	core *rest.RESTClient
	log  *slog.Logger
}

// New starts nothing.
func New(api *rest.Config, cfg Config, log *slog.Logger) (*Uninstall, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(appsv1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	apps, core := rest.CopyConfig(api), rest.CopyConfig(api)
	apps.APIPath, apps.GroupVersion = "/apis", &appsv1.SchemeGroupVersion
	core.APIPath, core.GroupVersion = "/api", &corev1.SchemeGroupVersion
	u := &Uninstall{cfg: cfg, log: log}
	for client, config := range map[**rest.RESTClient]*rest.Config{&u.apps: apps, &u.core: core} {
		config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
		config.QPS = -1 // some requests each Interval, one after the other
		var err error
		if *client, err = rest.RESTClientFor(config); err != nil {
			return nil, fmt.Errorf("prepare a client of the API server: %w", err)
		}
	}
	return u, nil
}

// Run returns nil once every node is clean but those that do not answer, which it
// names. An API server that does not answer for a moment is asked again.
func (u *Uninstall) Run(ctx context.Context) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Timeout)
	defer cancel()
	interval := u.cfg.Interval
	if interval == 0 {
		interval = time.Second
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var now progress
	var said map[string]bool
	var wrong error
	for {
		done, err := u.look(ctx, &now, time.Since(begin) >= u.cfg.AbsentAfter)
		for _, node := range slices.Sorted(maps.Keys(now.clean)) {
			if !said[node] {
				u.log.Info("node is clean", "node", node)
			}
		}
		said = maps.Clone(now.clean)
		if done {
			for _, node := range now.absent {
				u.log.Warn("node is not ready and was left as it is; its reboot cleans it, or when it is back: see Uninstall in docs/operations.md", "node", node)
			}
			u.log.Info("uninstalled", "clean", len(now.clean), "absent", len(now.absent))
			return nil
		}
		if apierrors.IsForbidden(err) {
			return err
		}
		if ctx.Err() == nil {
			wrong = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(wrong, now.late(u.cfg.Timeout))
		case <-tick.C:
		}
	}
}

// look deletes what is there to delete, and counts the nodes.
func (u *Uninstall) look(ctx context.Context, p *progress, patient bool) (done bool, err error) {
	if err := errors.Join(u.remove(ctx, "statefulsets", u.cfg.Gateway), u.remove(ctx, "daemonsets", u.cfg.Agent)); err != nil {
		return false, err
	}
	var set appsv1.DaemonSet
	if err := u.apps.Get().Namespace(u.cfg.Namespace).Resource("daemonsets").Name(u.cfg.Cleanup).Do(ctx).Into(&set); err != nil {
		return false, fmt.Errorf("read DaemonSet %s: %w", u.cfg.Cleanup, err)
	}
	if set.Status.ObservedGeneration < set.Generation || set.Status.ObservedGeneration == 0 {
		return false, nil
	}
	if set.Status.DesiredNumberScheduled == 0 {
		return false, fmt.Errorf("DaemonSet %s: no node is to be cleaned: correct uninstall.nodeSelector and uninstall.affinity", u.cfg.Cleanup)
	}
	var pods corev1.PodList
	err = u.core.Get().Namespace(u.cfg.Namespace).Resource("pods").
		Param("labelSelector", metav1.FormatLabelSelector(set.Spec.Selector)).Do(ctx).Into(&pods)
	if err != nil {
		return false, fmt.Errorf("list the pods of DaemonSet %s: %w", u.cfg.Cleanup, err)
	}
	p.count(pods.Items)
	if patient {
		if err := u.leave(ctx, p); err != nil {
			return false, err
		}
	}
	return len(p.clean)+len(p.absent) >= int(set.Status.DesiredNumberScheduled) && len(p.waiting) == 0, nil
}

// remove deletes a workload, and in the background its pods.
func (u *Uninstall) remove(ctx context.Context, resource, name string) error {
	background := metav1.DeletePropagationBackground
	err := u.apps.Delete().Namespace(u.cfg.Namespace).Resource(resource).Name(name).
		Body(&metav1.DeleteOptions{PropagationPolicy: &background}).Do(ctx).Error()
	if err == nil {
		u.log.Info("deleted", "resource", resource, "name", name)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %s: %w", resource, name, err)
	}
	return nil
}

// leave takes the nodes that are not ready from those that are waited for.
func (u *Uninstall) leave(ctx context.Context, p *progress) error {
	for _, node := range slices.Sorted(maps.Keys(p.waiting)) {
		var n corev1.Node
		err := u.core.Get().Resource("nodes").Name(node).Do(ctx).Into(&n)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("read node %s: %w", node, err)
		case slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}):
			continue
		}
		delete(p.waiting, node)
		p.absent = append(p.absent, node)
	}
	return nil
}

// progress is how far the nodes are.
type progress struct {
	clean   map[string]bool
	waiting map[string]string // node → why
	absent  []string
}

func (p *progress) count(pods []corev1.Pod) {
	*p = progress{clean: map[string]bool{}, waiting: map[string]string{}}
	for _, pod := range pods {
		if node, why := nodeOf(pod), unready(pod); why == "" {
			p.clean[node] = true
		} else {
			p.waiting[node] = why
		}
	}
}

func (p *progress) late(timeout time.Duration) error {
	if len(p.waiting) == 0 {
		return fmt.Errorf("not every node has a cleaning pod after %v: is the controller manager running?", timeout)
	}
	text := fmt.Sprintf("%d nodes are not clean after %v; put right what keeps them and uninstall again:", len(p.waiting), timeout)
	for _, node := range slices.Sorted(maps.Keys(p.waiting)) {
		text += fmt.Sprintf("\n  node %s: %s", node, p.waiting[node])
	}
	return errors.New(text)
}

// nodeOf is the node that the pod is for, also before it is there.
func nodeOf(pod corev1.Pod) string {
	if pod.Spec.NodeName != "" {
		return pod.Spec.NodeName
	}
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, field := range term.MatchFields {
				if field.Key == metav1.ObjectNameField && len(field.Values) == 1 {
					return field.Values[0]
				}
			}
		}
	}
	return ""
}

// unready is why the pod has not cleaned its node, "" when it has.
func unready(pod corev1.Pod) string {
	why := []string{"its cleaning pod has not started"}
	for _, c := range pod.Status.Conditions {
		switch {
		case c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil:
			return ""
		case c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse:
			why = []string{"its cleaning pod cannot start beside what is there", c.Message}
		}
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		for _, t := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
			if t != nil && t.ExitCode != 0 {
				return "cleaning it did not work: " + strings.TrimSpace(t.Message)
			}
		}
		if w := c.State.Waiting; w != nil {
			why = append(why, w.Reason, w.Message)
		}
	}
	return strings.Join(slices.DeleteFunc(why, func(s string) bool { return s == "" }), ": ")
}
