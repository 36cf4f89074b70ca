package lab

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// RoutesAnnotation opts a pod, or a namespace's pods, in to routes.
const RoutesAnnotation = "sallyport.dev/egress-routes"

// Manifests is the folder that the programs read as --source dir:PATH: one object
// a file, each written elsewhere and renamed into place.
type Manifests struct {
	Dir     string
	scratch string // on the same file system
}

type object = map[string]any

// WriteNode writes a Node; its first address is the tunnel end.
func (m *Manifests) WriteNode(name string, cidr netip.Prefix, addrs []netip.Addr) error {
	var addresses []object
	for i, a := range addrs {
		kind := "InternalIP"
		if i > 0 {
			kind = "ExternalIP"
		}
		addresses = append(addresses, object{"type": kind, "address": a.String()})
	}
	return m.Write("Node", "", name, object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": name},
		"spec":     object{"podCIDR": cidr.String(), "podCIDRs": []string{cidr.String()}},
		"status":   object{"addresses": addresses},
	})
}

// WriteNamespace writes a Namespace.
func (m *Manifests) WriteNamespace(name string, labels, annotations map[string]string) error {
	return m.Write("Namespace", "", name, object{
		"apiVersion": "v1", "kind": "Namespace", "metadata": metadata("", name, "", labels, annotations),
	})
}

// PodManifest is what a Pod's file says.
type PodManifest struct {
	Namespace, Name, UID, Node string
	Addr                       netip.Addr // zero: scheduled, no address yet
	Labels, Annotations        map[string]string
	HostNetwork                bool
	Phase                      string // default Running
	Deleting                   bool   // as long as it is there: the API has its deletionTimestamp
}

// WritePod writes a Pod.
func (m *Manifests) WritePod(p PodManifest) error {
	if p.Phase == "" {
		p.Phase = "Running"
	}
	spec, status := object{"nodeName": p.Node}, object{"phase": p.Phase}
	if p.HostNetwork {
		spec["hostNetwork"] = true
	}
	if p.Addr.IsValid() {
		status["podIP"], status["podIPs"] = p.Addr.String(), []object{{"ip": p.Addr.String()}}
	}
	meta := metadata(p.Namespace, p.Name, p.UID, p.Labels, p.Annotations)
	if p.Deleting {
		meta["deletionTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	}
	return m.Write("Pod", p.Namespace, p.Name, object{
		"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status,
	})
}

// WriteRoute writes an EgressRoute, given its spec as YAML.
func (m *Manifests) WriteRoute(name, spec string) error {
	var s object
	if err := yaml.Unmarshal([]byte(spec), &s); err != nil {
		return fmt.Errorf("read the spec of EgressRoute %s: %w", name, err)
	}
	return m.Write("EgressRoute", "", name, object{
		"apiVersion": "sallyport.dev/v1alpha1", "kind": "EgressRoute",
		"metadata": object{"name": name}, "spec": s,
	})
}

// Write writes any object.
func (m *Manifests) Write(kind, namespace, name string, o map[string]any) error {
	text, err := yaml.Marshal(o)
	if err != nil {
		return fmt.Errorf("write %s %s: %w", kind, name, err)
	}
	return m.WriteText(fileName(kind, namespace, name), string(text))
}

// WriteText puts a file of any content, also of a broken one, into the folder.
func (m *Manifests) WriteText(file, text string) error {
	f, err := os.CreateTemp(m.scratch, "*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(m.Dir, file))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// Remove removes an object's file.
func (m *Manifests) Remove(kind, namespace, name string) error {
	if err := os.Remove(m.Path(kind, namespace, name)); err != nil {
		return fmt.Errorf("remove %s %s: %w", kind, name, err)
	}
	return nil
}

// Path is the file of an object.
func (m *Manifests) Path(kind, namespace, name string) string {
	return filepath.Join(m.Dir, fileName(kind, namespace, name))
}

// AddFakePods writes pods that exist on paper only: 10.245.0.0 upwards, spread over
// the nodes, in namespace "default", named fake-0 upwards, with the annotation.
func (l *Lab) AddFakePods(count int, routes func(i int) string) error {
	for i := range count {
		p := PodManifest{
			Namespace: "default", Name: fmt.Sprintf("fake-%d", i), UID: newUID(), Node: NodeName(i%l.Options.Nodes + 1),
			Addr:   netip.AddrFrom4([4]byte{10, 245, byte(i >> 8), byte(i)}),
			Labels: map[string]string{"app": "fake"}, Annotations: map[string]string{RoutesAnnotation: routes(i)},
		}
		if err := l.Manifests.WritePod(p); err != nil {
			return err
		}
	}
	return nil
}

// AddFakeRoutes writes routes fake-0 upwards to two destinations each, which do not
// exist, in 198.18.0.0/15 (RFC 2544), for every namespace.
func (l *Lab) AddFakeRoutes(count int) error {
	for i := range count {
		err := l.Manifests.WriteRoute(fmt.Sprintf("fake-%d", i), fmt.Sprintf(`
vip: %s
namespaceSelector: {}
destinations:
- cidr: 198.18.%d.%d/32
  ports: [{protocol: TCP, port: 443, endPort: 444}]
- cidr: 198.19.%[2]d.%[3]d/32
`, l.Options.VIPs[i%len(l.Options.VIPs)], i>>8, i&255))
		if err != nil {
			return err
		}
	}
	return nil
}

func metadata(namespace, name, uid string, labels, annotations map[string]string) object {
	o := object{"name": name}
	for key, value := range map[string]string{"namespace": namespace, "uid": uid} {
		if value != "" {
			o[key] = value
		}
	}
	for key, value := range map[string]map[string]string{"labels": labels, "annotations": annotations} {
		if len(value) > 0 {
			o[key] = value
		}
	}
	return o
}

func fileName(kind, namespace, name string) string {
	if namespace != "" {
		name = namespace + "." + name
	}
	return strings.ToLower(kind) + "-" + name + ".yaml"
}

func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// NewKey is a line of a gossip key file.
func NewKey() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:]) + "\n"
}
