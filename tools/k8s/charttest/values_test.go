package charttest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// bases are releases in which, together, every value has something to say.
func bases() []map[string]any {
	type values = map[string]any
	file := values{"path": "x", "url": "https://example.com/x", "sha256": strings.Repeat("0", 64)}
	full := values{
		"stageDefaults":   values{"autoscaling": values{"kind": "keda"}},
		"orchestrator":    values{"service": values{"type": "LoadBalancer"}},
		"model":           values{"source": "download", "download": values{"models": []any{values{"name": "m", "files": []any{file}}}, "tokenSecret": values{"name": "t"}}},
		"tls":             values{"mode": "certManager", "requireClientCertificate": true, "certManager": values{"issuerRef": values{"name": "i"}}},
		"priorityClasses": values{"create": true},
		"monitoring":      values{"podMonitor": values{"enabled": true}, "prometheusRule": values{"enabled": true}, "dashboard": values{"enabled": true}},
	}
	return []map[string]any{
		full,
		{
			"stageDefaults": values{"gpu": values{"mode": "shared"}, "memoryBudget": "20GiB", "autoscaling": values{"kind": "hpa"}},
			"model":         values{"source": "image", "image": values{"reference": "r/m:1"}},
			"cache":         values{"enabled": true},
			"tls":           values{"mode": "secret", "secret": values{"orchestrator": "a", "stages": "b"}},
		},
		{
			"stageDefaults": values{"gpu": values{"mode": "dra"}, "memoryBudget": "20GiB"},
			"model":         values{"source": "pvc", "pvc": values{"existingClaim": "c"}},
			"tls":           values{"mode": "certManager"},
		},
		{
			"model": values{"source": "download", "download": values{"existingSecret": "s"}},
			"cache": values{"enabled": true},
		},
		{},
	}
}

// others are values that a value may be changed to.
func others(value any) []any {
	object := func(keys ...any) map[string]any {
		o := map[string]any{}
		for i := 0; i < len(keys); i += 2 {
			o[keys[i].(string)] = keys[i+1]
		}
		return o
	}
	switch v := value.(type) {
	case bool:
		return []any{!v}
	case float64:
		return []any{v + 1, v - 1, 30000}
	case string:
		return []any{
			"zz", "7h", "9s", "7GiB", "7Gi", "/zz", "cpu:1", "int8", "debug", "text", "colocated", "exclusive", "pvc", "secret", "Always", "Never", "hpa", "NodePort",
			"ClusterIssuer", "nvidia.com/mig-zz", "sha256:" + strings.Repeat("0", 64),
		}
	case []any:
		return []any{
			[]any{"--zz=1"},
			[]any{"10.0.0.0/8"},
			[]any{"zz"},
			[]any{object("name", "zz")},
			[]any{object("name", "zz", "mountPath", "/zz")},
			[]any{object("name", "zz", "emptyDir", object())},
			[]any{object("podSelector", object())},
			[]any{object("key", "zz", "operator", "Exists")},
			[]any{object("type", "cron", "metadata", object("start", "1"))},
			[]any{object("name", "m", "files", []any{object("path", "x", "url", "https://example.com/x", "sha256", strings.Repeat("0", 64))})},
		}
	case map[string]any:
		return []any{object("zz", "zz"), object("nodeAffinity", object()), object("replicas", 2.0), object("source", "image"), object("enabled", true)}
	}
	return nil
}

// Every value has an effect in some release: it changes the objects or the notes, or is refused in a sentence.
func TestEveryValue(t *testing.T) {
	dir := chart(t)
	plain, err := Render(t.Context(), dir, []Set{{Release: "y", KubeVersion: KubeVersion, Text: true}})
	broken(t, err)
	left := map[string]any{}
	leaves(left, nil, plain[0].Values)
	total := len(left)
	for _, base := range bases() {
		given := Set{Name: "base", Release: "y", KubeVersion: KubeVersion, Values: base, Text: true}
		results, err := Render(t.Context(), dir, []Set{given})
		broken(t, err)
		if results[0].Error != "" {
			verdict(t, "base", results[0].Error)
		}
		before := manifest(results[0]) + results[0].Notes
		untried := maps.Clone(left)
		for i := 0; len(untried) > 0; i++ { // the schema takes one of the others at the latest
			var sets []Set
			for path, value := range untried {
				candidates := others(value)
				if i >= len(candidates) {
					delete(untried, path)
					continue
				}
				changed := given
				changed.Name, changed.Values = path, clone(base)
				put(changed.Values, strings.Split(path, "\x00"), candidates[i])
				sets = append(sets, changed)
			}
			results, err := Render(t.Context(), dir, sets)
			broken(t, err)
			for _, r := range results {
				heard := strings.Contains(r.Error, "execution error")
				if heard || r.Error == "" {
					delete(untried, r.Name)
				}
				if heard || r.Error == "" && manifest(r)+r.Notes != before {
					delete(left, r.Name)
				}
			}
		}
	}
	for path := range left {
		verdict(t, strings.ReplaceAll(path, "\x00", "."), "changing it changes nothing, and nothing says so")
	}
	tally.passed.Add(int64(total - len(left)))
	if total < 100 {
		verdict(t, "values.yaml", fmt.Sprintf("only %d values were found", total))
	}
}

// leaves collects the values that have no others below them, by their path. Pools and Helm's own global are not among them.
func leaves(into map[string]any, path []string, values map[string]any) {
	for key, value := range values {
		if len(path) == 0 && (key == "stages" || key == "global") {
			continue
		}
		here := append(slices.Clone(path), key)
		if below, ok := value.(map[string]any); ok && len(below) > 0 {
			leaves(into, here, below)
			continue
		}
		into[strings.Join(here, "\x00")] = value
	}
}

// clone copies the objects of values.
func clone(values map[string]any) map[string]any {
	c := maps.Clone(values)
	for key, value := range c {
		if below, ok := value.(map[string]any); ok {
			c[key] = clone(below)
		}
	}
	return c
}
