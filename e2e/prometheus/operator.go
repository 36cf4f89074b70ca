package prometheus

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// PodMonitor is what the Prometheus operator scrapes by, as far as the chart uses it.
type PodMonitor struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Selector struct {
			MatchLabels      map[string]string
			MatchExpressions []struct {
				Key, Operator string
				Values        []string
			}
		}
		PodTargetLabels     []string
		PodMetricsEndpoints []struct {
			Port, Path, Interval string
			HonorLabels          bool
			Relabelings          []struct {
				SourceLabels []string
				TargetLabel  string
			}
		}
	}
}

type relabeling map[string]any

func keep(label, values string) relabeling {
	return relabeling{"action": "keep", "source_labels": []string{label}, "regex": values}
}

func from(target string, labels ...string) relabeling {
	return relabeling{"action": "replace", "source_labels": labels, "target_label": target}
}

var notOfLabels = regexp.MustCompile(`\W`)

// podLabel is the name that discovery gives a pod's label.
func podLabel(name string) string {
	return "__meta_kubernetes_pod_label_" + notOfLabels.ReplaceAllString(name, "_")
}

// Scrape is what the operator makes of the first endpoint (its pkg/prometheus/promcfg.go), for pods
// that are in a file: Debian's Prometheus is built without discovery by Kubernetes.
func (m PodMonitor) Scrape(pods string) (ScrapeConfig, error) {
	if len(m.Spec.PodMetricsEndpoints) != 1 {
		return nil, fmt.Errorf("PodMonitor %s has %d endpoints, want one", m.Metadata.Name, len(m.Spec.PodMetricsEndpoints))
	}
	end := m.Spec.PodMetricsEndpoints[0]
	config := ScrapeConfig{
		"job_name":     fmt.Sprintf("podMonitor/%s/%s/0", m.Metadata.Namespace, m.Metadata.Name),
		"honor_labels": end.HonorLabels, "metrics_path": cmp.Or(end.Path, "/metrics"),
		"file_sd_configs": []any{map[string]any{"files": []string{pods}}},
	}
	if end.Interval != "" {
		config["scrape_interval"], config["scrape_timeout"] = end.Interval, end.Interval
	}
	relabel := []relabeling{keep("__meta_kubernetes_namespace", regexp.QuoteMeta(m.Metadata.Namespace))}
	for name, value := range m.Spec.Selector.MatchLabels {
		relabel = append(relabel, keep(podLabel(name), regexp.QuoteMeta(value)))
	}
	for _, e := range m.Spec.Selector.MatchExpressions {
		if e.Operator != "In" {
			return nil, fmt.Errorf("PodMonitor %s selects by operator %s: teach it to this package", m.Metadata.Name, e.Operator)
		}
		relabel = append(relabel, keep(podLabel(e.Key), strings.Join(e.Values, "|")))
	}
	relabel = append(relabel, keep("__meta_kubernetes_pod_container_port_name", end.Port),
		from("namespace", "__meta_kubernetes_namespace"), from("container", "__meta_kubernetes_pod_container_name"),
		from("pod", "__meta_kubernetes_pod_name"))
	for _, name := range m.Spec.PodTargetLabels {
		relabel = append(relabel, from(notOfLabels.ReplaceAllString(name, "_"), podLabel(name)))
	}
	relabel = append(relabel, relabeling{"target_label": "job", "replacement": m.Metadata.Namespace + "/" + m.Metadata.Name},
		relabeling{"target_label": "endpoint", "replacement": end.Port})
	for _, r := range end.Relabelings {
		relabel = append(relabel, from(r.TargetLabel, r.SourceLabels...))
	}
	config["relabel_configs"] = relabel
	return config, nil
}

// group of targets, in a file that Prometheus discovers them by.
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// WritePods makes of the API server's list of pods such a file, in which each port of a container
// is a target with the labels that discovery by Kubernetes gives it (its role pod).
func WritePods(file string, list []byte) error {
	var pods struct {
		Items []struct {
			Metadata struct {
				Name, Namespace string
				Labels          map[string]string
			}
			Spec struct {
				NodeName   string
				Containers []struct {
					Name  string
					Ports []struct {
						Name          string
						ContainerPort int
					}
				}
			}
			Status struct{ PodIP string }
		}
	}
	if err := json.Unmarshal(list, &pods); err != nil {
		return fmt.Errorf("list of pods: %w", err)
	}
	groups := []group{}
	for _, p := range pods.Items {
		for _, c := range p.Spec.Containers {
			for _, port := range c.Ports {
				labels := map[string]string{
					"__meta_kubernetes_namespace": p.Metadata.Namespace, "__meta_kubernetes_pod_name": p.Metadata.Name,
					"__meta_kubernetes_pod_node_name": p.Spec.NodeName, "__meta_kubernetes_pod_container_name": c.Name,
					"__meta_kubernetes_pod_container_port_name": port.Name,
				}
				for name, value := range p.Metadata.Labels {
					labels[podLabel(name)] = value
				}
				groups = append(groups, group{[]string{fmt.Sprintf("%s:%d", p.Status.PodIP, port.ContainerPort)}, labels})
			}
		}
	}
	slices.SortFunc(groups, func(a, b group) int { return cmp.Compare(a.Targets[0], b.Targets[0]) })
	text, err := json.Marshal(groups)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}
