package lab

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/e2e/netns"
)

// PodSpec is a pod to be made.
type PodSpec struct {
	Name      string // also its host's short name; at most 20 characters
	Namespace string // default "default"
	Node      int
	// Addr of the pod; the zero Addr takes the lowest free one of the node, so that
	// the address of a removed pod is soon used again.
	Addr        netip.Addr
	Labels      map[string]string // default app=<name>
	Annotations map[string]string
	// Unlisted leaves out the manifest: the pod sends before the cluster knows it.
	Unlisted bool
}

// Pod is a pod that exists, in a namespace of its own.
type Pod struct {
	PodSpec
	UID string
	ns  *netns.NS
}

// AddPod makes a pod and its manifest.
func (l *Lab) AddPod(spec PodSpec) (*Pod, error) {
	if spec.Namespace == "" {
		spec.Namespace = "default"
	}
	if spec.Labels == nil {
		spec.Labels = map[string]string{"app": spec.Name}
	}
	node, err := l.machine(NodeName(spec.Node))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	if l.hosts[spec.Name] != nil {
		l.mu.Unlock()
		return nil, fmt.Errorf("add pod %s: there is a host of that name", spec.Name)
	}
	if spec.Addr, err = l.freeAddr(spec); err != nil {
		l.mu.Unlock()
		return nil, err
	}
	pod := &Pod{PodSpec: spec, UID: newUID()}
	l.pods[spec.Name] = pod
	l.mu.Unlock()
	if err := l.wirePod(node, pod); err != nil {
		return nil, errors.Join(fmt.Errorf("add pod %s: %w", spec.Name, err), l.RemovePod(spec.Name))
	}
	if !spec.Unlisted {
		if err := l.Manifests.WritePod(pod.Manifest()); err != nil {
			return nil, err
		}
	}
	return pod, l.saveChange()
}

func (l *Lab) freeAddr(spec PodSpec) (netip.Addr, error) {
	taken := map[netip.Addr]bool{}
	for _, p := range l.pods {
		taken[p.Addr] = true
	}
	if spec.Addr.IsValid() {
		if taken[spec.Addr] || !PodCIDR(spec.Node).Contains(spec.Addr) {
			return spec.Addr, fmt.Errorf("add pod %s: address %s is taken or not of node %d", spec.Name, spec.Addr, spec.Node)
		}
		return spec.Addr, nil
	}
	// pod-j-k has the address .9+k, whatever order the pods are made in.
	if f := strings.Split(spec.Name, "-"); len(f) == 3 && f[0] == "pod" {
		if k, err := strconv.Atoi(f[2]); err == nil && k > 0 && k < 200 {
			if a := host(PodCIDR(spec.Node), firstPod-1+k); !taken[a] {
				return a, nil
			}
		}
	}
	for octet := firstPod; octet < 250; octet++ {
		if a := host(PodCIDR(spec.Node), octet); !taken[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("add pod %s: no address is free on node %d", spec.Name, spec.Node)
}

func (l *Lab) wirePod(node *machine, pod *Pod) error {
	m, err := l.newMachine(pod.Name)
	if err != nil {
		return err
	}
	pod.ns = m.NS
	cni, err := node.nl.LinkByName("cni0")
	if err != nil {
		return fmt.Errorf("find cni0 in %s: %w", node.Name, err)
	}
	octet := int(pod.Addr.As4()[3])
	if err := node.veth(podPort(pod.Addr), mac(pod.Node, 0x100|octet), cni.Attrs().Index, m, "eth0", mac(pod.Node, 0x200|octet)); err != nil {
		return err
	}
	return errors.Join(
		m.up("eth0", netip.PrefixFrom(pod.Addr, 24)),
		m.route(netip.Prefix{}, host(PodCIDR(pod.Node), 1)),
	)
}

// podPort is the pod's interface on the node's side.
func podPort(a netip.Addr) string { return fmt.Sprintf("pod%d", a.As4()[3]) }

// RemovePod removes a pod and its manifest; its address is free at once.
func (l *Lab) RemovePod(name string) error {
	return errors.Join(l.unwirePod(name), func() error {
		l.mu.Lock()
		pod := l.pods[name]
		delete(l.pods, name)
		l.mu.Unlock()
		if pod == nil || pod.Unlisted {
			return nil
		}
		return l.Manifests.Remove("Pod", pod.Namespace, pod.Name)
	}(), l.saveChange())
}

// unwirePod deletes the node's end by name: the kernel removes a namespace's
// interfaces some time after the namespace, and the name is needed again.
func (l *Lab) unwirePod(name string) error {
	pod, err := l.Pod(name)
	if err != nil {
		return err
	}
	if node, err := l.machine(NodeName(pod.Node)); err == nil {
		if link, err := node.nl.LinkByName(podPort(pod.Addr)); err == nil {
			if err := node.nl.LinkDel(link); err != nil {
				return fmt.Errorf("remove pod %s: %w", name, err)
			}
		}
	}
	return l.dropMachine(name)
}

// Pod gives a pod by name.
func (l *Lab) Pod(name string) (*Pod, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pods[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("lab %s has no pod %q", l.Options.Prefix, name)
}

// Pods lists the pods by name.
func (l *Lab) Pods() []*Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	var pods []*Pod
	for _, name := range slices.Sorted(maps.Keys(l.pods)) {
		pods = append(pods, l.pods[name])
	}
	return pods
}

// Annotate opts a pod in to routes ("payments,kyc"); "" takes the annotation away.
func (l *Lab) Annotate(name, routes string) error {
	pod, err := l.Pod(name)
	if err != nil {
		return err
	}
	l.mu.Lock()
	pod.Annotations = maps.Clone(pod.Annotations)
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	if routes == "" {
		delete(pod.Annotations, RoutesAnnotation)
	} else {
		pod.Annotations[RoutesAnnotation] = routes
	}
	l.mu.Unlock()
	return errors.Join(l.Manifests.WritePod(pod.Manifest()), l.saveChange())
}

// Manifest is the pod's, as its file has it.
func (p *Pod) Manifest() PodManifest {
	return PodManifest{
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Node: NodeName(p.Node),
		Addr: p.Addr, Labels: p.Labels, Annotations: p.Annotations,
	}
}
