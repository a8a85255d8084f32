package charttest

import (
	"fmt"
	"strings"
)

// A Mode is one of the ways to run the release, and what is to come of it.
type Mode struct {
	Set
	Refused string         // a part of the refusal, where the parts of the mode do not go together
	Objects map[string]int // how many there are of some kinds, where they do
}

// The parts that modes are made of.
var (
	gpus       = []string{"none", "exclusive", "shared", "mig", "dra"}
	scalers    = []string{"none", "hpa", "keda"}
	models     = []string{"none", "pvc", "image", "download"}
	caches     = []bool{false, true}
	tlsModes   = []string{"none", "secret", "certManager"}
	topologies = []string{"separate", "colocated"}
	// Words that YAML takes for something else, and the longest name that Helm allows.
	releases = []string{"triptych", "y", "123", strings.Repeat("n", 53), "1e3", "off"}
)

// Modes are all of them: the product of the parts, with release names in turn. Everything that can be switched on is.
func Modes() (modes []Mode) {
	for _, gpu := range gpus {
		for _, scaler := range scalers {
			for _, model := range models {
				for _, cache := range caches {
					for _, tls := range tlsModes {
						for _, topology := range topologies {
							m := mode(gpu, scaler, model, cache, tls, topology)
							// Neighbours have different names, and so have modes that differ in their last parts alone.
							m.Release = releases[(len(modes)+len(modes)/len(releases))%len(releases)]
							m.Name = fmt.Sprintf("gpu %s, autoscaling %s, model %s, cache %t, tls %s, %s, release %s", gpu, scaler, model, cache, tls, topology, m.Release)
							modes = append(modes, m)
						}
					}
				}
			}
		}
	}
	return modes
}

func mode(gpu, scaler, model string, cache bool, tls, topology string) Mode {
	type values = map[string]any
	resource, budget := "", "auto"
	if gpu == "mig" {
		resource = "nvidia.com/mig-2g.20gb"
	}
	if gpu != "none" {
		budget = "20GiB"
	}
	fewest, workloads := 1, 3
	if scaler == "keda" {
		fewest = 0
	}
	if topology == "colocated" {
		workloads = 1
	}
	m := Mode{Set: Set{KubeVersion: KubeVersion, Values: values{
		"topology": topology,
		"stageDefaults": values{
			"gpu":          values{"mode": gpu, "resource": resource, "dra": values{"selectors": []string{`device.capacity["gpu.nvidia.com"].memory.isGreaterThan(quantity("20Gi"))`}}},
			"memoryBudget": budget,
			"autoscaling":  values{"kind": scaler, "minReplicas": fewest},
		},
		"model": values{
			"source": model,
			"pvc":    values{"existingClaim": "models"},
			"image":  values{"reference": "registry.example.com/models:1"},
			"download": values{"models": []values{{"name": "sd15", "files": []values{
				{"path": "unet/x.safetensors", "url": "https://example.com/x", "sha256": strings.Repeat("0", 64)},
			}}}},
		},
		"cache":           values{"enabled": cache},
		"tls":             values{"mode": tls, "requireClientCertificate": tls != "none", "secret": values{"orchestrator": "a", "stages": "b"}},
		"priorityClasses": values{"create": true},
		"monitoring":      values{"podMonitor": values{"enabled": true}, "prometheusRule": values{"enabled": true}, "dashboard": values{"enabled": true}},
	}}}
	switch {
	case topology == "colocated" && (gpu == "exclusive" || gpu == "mig"):
		m.Refused = "colocated.gpu.mode " + gpu + ": a device plugin gives a card to one container"
	case cache && model == "none":
		m.Refused = "model.source none has nothing to cache"
	default:
		m.Objects = map[string]int{
			"Deployment": workloads + 1, "Service": workloads + 1, "NetworkPolicy": workloads + 1, "PodDisruptionBudget": workloads,
			"HorizontalPodAutoscaler": count(scaler == "hpa", workloads), "ScaledObject": count(scaler == "keda", workloads),
			"ResourceClaimTemplate": count(gpu == "dra", workloads), "Certificate": count(tls == "certManager", workloads+2),
			"PodMonitor": 1, "PrometheusRule": 1, "Pod": 1,
			"ConfigMap": 1 + count(model == "download", workloads),
		}
	}
	return m
}

// count is n where something is there.
func count(there bool, n int) int {
	if there {
		return n
	}
	return 0
}
