package lab

import "fmt"

// LosePod takes a pod off its node as the CNI does, and leaves its manifest: the API
// has not heard of it yet. Its name and its address are free at once.
func (l *Lab) LosePod(name string) error {
	if err := l.unwirePod(name); err != nil {
		return err
	}
	l.mu.Lock()
	delete(l.pods, name)
	l.mu.Unlock()
	return l.saveChange()
}

// RoutePod gives a pod an address of its own to be routed to, as Calico and ptp do,
// in the place of its bridge's port.
func (l *Lab) RoutePod(name string) error {
	pod, err := l.Pod(name)
	if err != nil {
		return err
	}
	node, port := NodeName(pod.Node), podPort(pod.Addr)
	for _, args := range [][]string{
		{"ip", "link", "set", port, "nomaster"},
		{"ip", "route", "add", pod.Addr.String() + "/32", "dev", port},
		// Everybody else, its gateway included, answers for the node.
		{"sysctl", "-qw", "net.ipv4.conf." + port + ".proxy_arp=1"},
	} {
		if _, err := l.Exec(node, args[0], args[1:]...); err != nil {
			return fmt.Errorf("route to pod %s: %w", name, err)
		}
	}
	return nil
}

// PodPort is the pod's interface on its node.
func (l *Lab) PodPort(name string) (string, error) {
	pod, err := l.Pod(name)
	if err != nil {
		return "", err
	}
	return podPort(pod.Addr), nil
}
