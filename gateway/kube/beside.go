package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// ReportFile is where a container of RunBeside leaves what it has to say: the kubelet
// brings it to the pod's status.
const ReportFile = corev1.TerminationMessagePathDefault

// besidePatience is how long such a container may take, its image being pulled first.
const besidePatience = 2 * time.Minute

// RunBeside runs the image with the arguments in the pod's network namespace, as an
// ephemeral container without any privilege, and gives what it left in ReportFile.
func (c *Client) RunBeside(ctx context.Context, namespace, pod, image string, args []string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, besidePatience, fmt.Errorf("not within %v", besidePatience))
	defer cancel()
	no, yes, nobody := false, true, int64(65534)
	name := fmt.Sprintf("sallyport-probe-%08x", rand.Uint32())
	patch := map[string]any{"spec": map[string]any{"ephemeralContainers": []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: name, Image: image, Args: args, ImagePullPolicy: corev1.PullIfNotPresent,
			SecurityContext: &corev1.SecurityContext{
				RunAsUser: &nobody, RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
				Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
		},
	}}}}
	body, err := json.Marshal(patch)
	if err != nil {
		return "", fmt.Errorf("encode the container: %w", err)
	}
	err = c.core.Patch(types.StrategicMergePatchType).Namespace(namespace).Resource("pods").Name(pod).SubResource("ephemeralcontainers").Body(body).Do(ctx).Error()
	switch {
	case apierrors.IsForbidden(err):
		return "", fmt.Errorf("add a container to pod %s/%s: %w: ask for the right to patch pods/ephemeralcontainers in namespace %s", namespace, pod, err, namespace)
	case err != nil:
		return "", fmt.Errorf("add a container to pod %s/%s: %w", namespace, pod, err)
	}
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		p, err := c.Pod(ctx, namespace, pod)
		if err == nil && p == nil {
			return "", fmt.Errorf("pod %s/%s has gone", namespace, pod)
		}
		if err != nil {
			return "", err
		}
		state := corev1.ContainerState{}
		if i := slices.IndexFunc(p.Status.EphemeralContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == name }); i >= 0 {
			state = p.Status.EphemeralContainerStatuses[i].State
		}
		if state.Terminated != nil {
			return state.Terminated.Message, nil
		}
		select {
		case <-ctx.Done():
			waiting := "the kubelet does not say why"
			if w := state.Waiting; w != nil {
				waiting = w.Reason + ": " + w.Message
			}
			return "", fmt.Errorf("container %s in pod %s/%s has not ended: %w (%s)", name, namespace, pod, context.Cause(ctx), waiting)
		case <-ticker.C:
		}
	}
}
