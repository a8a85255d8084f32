package charttest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A refusal is values that must not be rendered, and a part of what the caller is told.
type refusal struct {
	values string // JSON, where each key may be a path with dots
	says   string
	kube   string // the cluster's version, if it is not KubeVersion
}

// What some of them have in common.
const (
	digest = `"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"`
	file   = `{"path":"x","url":"https://example.com/x","sha256":` + digest + `}`
)

// What the schema refuses.
var misshapen = []refusal{
	{values: `{"orchestratr.replicas": 2}`, says: `additional properties 'orchestratr' not allowed`},
	{values: `{"stages.denoiser.gpus.mode": "exclusive"}`, says: `at '/stages/denoiser': additional properties 'gpus' not allowed`},
	{values: `{"stageDefaults.gpu.mode": "magic"}`, says: `at '/stageDefaults/gpu/mode': value must be one of 'none', 'exclusive', 'shared', 'mig', 'dra'`},
	{values: `{"stages.denoiser.kind": "unet"}`, says: `at '/stages/denoiser/kind'`},
	{values: `{"stages.denoiser.replicas": "two"}`, says: `at '/stages/denoiser/replicas': got string, want integer`},
	{values: `{"stages.denoiser.replicas": -1}`, says: `at '/stages/denoiser/replicas': minimum`},
	{values: `{"stages.denoiser.autoscaling.enabled": true}`, says: `additional properties 'enabled' not allowed`},
	{values: `{"stages.denoiser.autoscaling.kind": "vpa"}`, says: `value must be one of 'none', 'hpa', 'keda'`},
	{values: `{"stages.Denoiser.kind": "denoiser"}`, says: `at '/stages': additional properties 'Denoiser' not allowed`},
	{values: `{"stages.second": {"replicas": 1}}`, says: `at '/stages/second': missing property 'kind'`},
	{values: `{"stages.denoiser.memoryBudget": "lots"}`, says: `at '/stages/denoiser/memoryBudget': 'lots' does not match pattern`},
	{values: `{"stages.denoiser.precision": "fp8"}`, says: `at '/stages/denoiser/precision'`},
	{values: `{"stages.denoiser.resources.limits.memory": "12Q1"}`, says: `at '/stages/denoiser/resources/limits/memory'`},
	{values: `{"stages.denoiser.drainTimeout": "20"}`, says: `at '/stages/denoiser/drainTimeout'`},
	{values: `{"stages.denoiser.extraArgs": ["-v"]}`, says: `at '/stages/denoiser/extraArgs/0'`},
	{values: `{"stages.denoiser.models": ["../x"]}`, says: `at '/stages/denoiser/models/0'`},
	{values: `{"topology": "together"}`, says: `value must be one of 'separate', 'colocated'`},
	{values: `{"orchestrator.replicas": 3}`, says: `at '/orchestrator/replicas': maximum`},
	{values: `{"orchestrator.service.type": "Ingress"}`, says: `at '/orchestrator/service/type'`},
	{values: `{"model.source": "s3"}`, says: `value must be one of 'none', 'pvc', 'image', 'download'`},
	{values: `{"model.source": "download", "model.download.models": [{"name":"m","files":[{"path":"x","url":"https://example.com/x"}]}]}`, says: `missing property 'sha256'`},
	{values: `{"model.source": "download", "model.download.models": [{"name":"m","files":[{"path":"../../etc/x","url":"https://example.com/x","sha256":` + digest + `}]}]}`, says: `/path': '../../etc/x' does not match pattern`},
	{values: `{"model.source": "download", "model.download.models": [{"name":"m","files":[{"path":"x","url":"ftp://example.com/x","sha256":` + digest + `}]}]}`, says: `/url'`},
	{values: `{"tls.mode": "on"}`, says: `value must be one of 'none', 'secret', 'certManager'`},
	{values: `{"tls.mode": true}`, says: `at '/tls/mode': value must be one of`},
	{values: `{"image.digest": "sha256:1234"}`, says: `at '/image/digest'`},
	{values: `{"image.pullPolicy": "always"}`, says: `value must be one of 'Always', 'IfNotPresent', 'Never'`},
	{values: `{"podSecurity.user": 0}`, says: `at '/podSecurity/user': minimum`},
	{values: `{"networkPolicy.callers": [{}]}`, says: `at '/networkPolicy/callers/0'`},
	{values: `{"priorityClasses.stage": 2000000000}`, says: `at '/priorityClasses/stage': maximum`},
	{values: `{"log.level": "loud"}`, says: `at '/log/level'`},
	{values: `{"monitoring.podMonitor": true}`, says: `at '/monitoring/podMonitor': got boolean, want object`},
}

// What guards refuse, since a schema cannot.
var senseless = []refusal{
	{values: `{"stages.orchestrator.kind": "denoiser"}`, says: `stages.orchestrator: the name is the release's own`},
	{values: `{"commonLabels": {"app.kubernetes.io/name": "x"}}`, says: `commonLabels has app.kubernetes.io/name, which the release sets itself`},
	{values: `{"stages.decoder": null}`, says: `stages: no pool is of kind decoder, and no picture is made without one`},
	{values: `{"colocated.replicas": 2}`, says: `colocated.replicas has no effect with topology separate`},
	{values: `{"topology": "colocated", "stages.second.kind": "denoiser"}`, says: `a second pool of kind denoiser`},
	{values: `{"topology": "colocated", "stages.denoiser.replicas": 2}`, says: `stages.denoiser.replicas has no effect with topology colocated`},
	{values: `{"stages.denoiser.autoscaling": {"kind": "hpa", "minReplicas": 5, "maxReplicas": 2}}`, says: `stages.denoiser.autoscaling.minReplicas: expected at most maxReplicas, 2, got 5`},
	{values: `{"stages.denoiser.autoscaling": {"kind": "hpa", "minReplicas": 0}}`, says: `an HorizontalPodAutoscaler wakes nothing from zero`},
	{values: `{"stages.denoiser.autoscaling": {"kind": "hpa", "hpa": {"cpuUtilization": 80}}, "stageDefaults.resources.requests.cpu": null}`, says: `stages.denoiser.resources.requests.cpu: expected a request`},
	{values: `{"stages.denoiser.autoscaling.kind": "keda", "networkPolicy.scalerFrom": []}`, says: `networkPolicy.scalerFrom is empty, and stages.denoiser.autoscaling.kind is keda`},
	{values: `{"stages.denoiser.device": "cuda:0"}`, says: `stages.denoiser.device is cuda:0, and gpu.mode none asks for no card`},
	{values: `{"stages.denoiser.gpu.mode": "mig"}`, says: `stages.denoiser.gpu.resource: expected the name of a partition`},
	{values: `{"stages.denoiser.gpu": {"mode": "shared", "count": 2}}`, says: `stages.denoiser.gpu.count: expected 1 with gpu.mode shared`},
	{values: `{"stages.denoiser.gpu.mode": "dra"}`, kube: "1.33.9", says: `expected Kubernetes 1.34 or newer, which serves resource.k8s.io/v1, got v1.33.9`},
	{values: `{"topology": "colocated", "colocated.gpu.mode": "exclusive"}`, says: `colocated.gpu.mode exclusive: a device plugin gives a card to one container`},
	{values: `{"stages.denoiser.resources.limits": {"nvidia.com/gpu": 1}}`, says: `stages.denoiser.resources.limits has nvidia.com/gpu, which the release would not know of`},
	{values: `{"stages.denoiser.gpu.mode": "shared"}`, says: `stages.denoiser.memoryBudget: expected what the stages on the card may hold together`},
	{values: `{"stageDefaults.gpu.mode": "shared", "stageDefaults.memoryBudget": "20GiB", "stages.denoiser.memoryBudget": "30GiB"}`, says: `and their pods may share a card, on which the larger would hold for all`},
	{values: `{"stageDefaults.gpu.mode": "shared", "stageDefaults.memoryBudget": "20GiB", "stages.denoiser.gpu.claims.hostPath": "/var/lib/other"}`, says: `gpu.claims differ, and their pods may share a card`},
	{values: `{"stages.denoiser.memoryBudget": "8GiB"}`, says: `stages.denoiser.memoryBudget is 8GiB, and the denoiser's container is killed beyond resources.limits.memory, 2Gi`},
	{values: `{"stages.denoiser.warmMemory": "2GiB"}`, says: `leaves nothing of resources.limits.memory, 2Gi, to memoryBudget: auto`},
	{values: `{"stages.denoiser": {"gpu": {"mode": "exclusive"}, "warmMemory": "8GiB"}}`, says: `stages.denoiser.warmMemory is 8GiB, and its container is killed beyond`},
	{values: `{"model.source": "pvc"}`, says: `model.pvc.existingClaim: expected the name of a PersistentVolumeClaim`},
	{values: `{"model.source": "image"}`, says: `model.image.reference: expected the reference of an OCI image`},
	{values: `{"model.source": "image", "model.image.reference": "r/m:1"}`, kube: "1.32.0", says: `expected Kubernetes 1.33 or newer, which mounts images as volumes`},
	{values: `{"model.source": "download"}`, says: `model.download: expected models or existingSecret with model.source download, got neither`},
	{values: `{"model.source": "download", "model.download": {"existingSecret": "s", "models": [{"name":"m","files":[` + file + `]}]}}`, says: `model.download.models and model.download.existingSecret are both set`},
	{values: `{"model.source": "download", "model.download.models": [{"name":"m","files":[` + file + `]},{"name":"m","files":[` + file + `]}]}`, says: `model.download.models has m twice`},
	{values: `{"model.source": "download", "model.download.models": [{"name":"m","files":[` + file + `]}], "stages.denoiser.models": ["n"]}`, says: `stages.denoiser.models names n, which model.download.models does not have: expected one of m`},
	{values: `{"cache.enabled": true}`, says: `cache.enabled, and model.source none has nothing to cache`},
	{values: `{"cache": {"enabled": true, "limit": "9GiB"}, "model.source": "download", "model.download.models": [{"name":"m","files":[` + file + `]}]}`, says: `cache.limit has no effect where models are downloaded straight to the cache`},
	{values: `{"tls.mode": "secret", "tls.secret.stages": "s"}`, says: `tls.secret.orchestrator: expected the name of a Secret`},
	{values: `{"tls.mode": "secret", "tls.secret.orchestrator": "s"}`, says: `tls.secret.stages: expected the name of a Secret`},
	{values: `{"tls.requireClientCertificate": true}`, says: `tls.requireClientCertificate has no effect with tls.mode none`},
	{values: `{"tls.mode": "certManager", "tls.certManager": {"duration": "24h", "renewBefore": "48h"}}`, says: `tls.certManager.renewBefore: expected less than tls.certManager.duration, 24h, got 48h`},
	{values: `{"orchestrator.replicas": 2, "stageDefaults.autoscaling": {"kind": "keda", "minReplicas": 0}}`, says: `orchestrator.replicas is 2, and every pool may go to zero`},
	{values: `{"orchestrator.service.loadBalancerClass": "x"}`, says: `have no effect with type ClusterIP: expected type LoadBalancer`},
	{values: `{"orchestrator.service.nodePort": 30000}`, says: `orchestrator.service.nodePort has no effect with type ClusterIP`},
	{values: `{"monitoring.podMonitor.enabled": true, "networkPolicy.metricsFrom": []}`, says: `networkPolicy.metricsFrom is empty, and monitoring.podMonitor.enabled`},
	{values: `{"stages.denoiser.terminationGracePeriodSeconds": 10}`, says: `stages.denoiser.terminationGracePeriodSeconds: expected more than preStopSeconds and drainTimeout together, 25, got 10`},
	{values: `{"orchestrator.terminationGracePeriodSeconds": 60}`, says: `orchestrator.terminationGracePeriodSeconds: expected more than preStopSeconds and drainTimeout together, 65, got 60`},
	{values: `{"stages.denoiser.drainTimeout": "0s"}`, says: `stages.denoiser.drainTimeout: expected at least 1s, got 0s`},
	{values: `{"stages.denoiser.extraVolumes": [{"name": "tmp", "emptyDir": {}}]}`, says: `stages.denoiser.extraVolumes: the name tmp is the release's own`},
	{values: `{"stages.denoiser.extraArgs": ["--memory-budget=1GiB"]}`, says: `stages.denoiser.extraArgs has --memory-budget, which the release sets itself`},
	{values: `{"orchestrator.extraArgs": ["--denoiser=x:1"]}`, says: `orchestrator.extraArgs has --denoiser, which the release sets itself`},
	{values: `{"stages.denoiser.extraEnv": [{"name": "TMPDIR", "value": "/x"}]}`, says: `stages.denoiser.extraEnv has TMPDIR, which the release sets itself`},
	{values: `{}`, kube: "1.30.9", says: `chart requires kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.9`},
}

// Every wrong value is refused, and told by name. Every sentence that the chart can refuse with is heard.
func TestRefusals(t *testing.T) {
	dir := chart(t)
	var sets []Set
	all := append(append([]refusal(nil), misshapen...), senseless...)
	for _, r := range all {
		var given map[string]any
		broken(t, json.Unmarshal([]byte(r.values), &given))
		set := Set{Name: r.values, Release: "y", KubeVersion: KubeVersion, Values: map[string]any{}}
		for path, value := range given {
			put(set.Values, strings.Split(path, "."), value)
		}
		if r.kube != "" {
			set.KubeVersion = r.kube
		}
		sets = append(sets, set)
	}
	results, err := Render(t.Context(), dir, sets)
	broken(t, err)
	said := ""
	for i, r := range results {
		said += r.Error + "\n"
		switch {
		case r.Error == "":
			verdict(t, r.Name, fmt.Sprintf("it was rendered, expected the refusal %q", all[i].says))
		case !strings.Contains(r.Error, all[i].says):
			verdict(t, r.Name, fmt.Sprintf("the refusal is %q, expected %q in it", r.Error, all[i].says))
		default:
			verdict(t, r.Name)
		}
	}
	for _, sentence := range sentences(t, dir) {
		if !sentence.heard(said) {
			verdict(t, sentence.at, fmt.Sprintf("no wrong value of this test has it refuse with %q", sentence.text))
			continue
		}
		verdict(t, sentence.at)
	}
}

// put sets a value at a path and makes the objects on its way.
func put(values map[string]any, path []string, value any) {
	if len(path) == 1 {
		// Values at one path may come in parts.
		if have, ok := values[path[0]].(map[string]any); ok {
			if more, ok := value.(map[string]any); ok {
				for key, v := range more {
					have[key] = v
				}
				return
			}
		}
		values[path[0]] = value
		return
	}
	below, ok := values[path[0]].(map[string]any)
	if !ok {
		below = map[string]any{}
		values[path[0]] = below
	}
	put(below, path[1:], value)
}

// A sentence is the text of a refusal in a template, with the verbs of printf.
type sentence struct{ at, text string }

var (
	refuses = regexp.MustCompile(`(?:fail|required)\s+\(?(?:printf\s+)?"((?:[^"\\]|\\.)*)"`)
	verb    = regexp.MustCompile(`%[a-z]`)
)

func (s sentence) heard(said string) bool {
	parts := verb.Split(s.text, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(strings.Join(parts, `[^\n]*`)).MatchString(said)
}

// sentences are those of all templates.
func sentences(t *testing.T, dir string) (all []sentence) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "templates", "*"))
	broken(t, err)
	for _, name := range files {
		if info, err := os.Stat(name); err != nil || info.IsDir() {
			continue
		}
		data, err := os.ReadFile(name)
		broken(t, err)
		for _, m := range refuses.FindAllStringSubmatch(string(data), -1) {
			all = append(all, sentence{filepath.Base(name), strings.ReplaceAll(m[1], `\"`, `"`)})
		}
	}
	if len(all) < 20 {
		t.Errorf("only %d sentences were found in the templates", len(all))
	}
	return all
}
