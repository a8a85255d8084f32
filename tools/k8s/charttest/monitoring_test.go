package charttest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/tools/k8s/tool"
)

// monitored is the release whose monitoring is looked at.
func monitored(t *testing.T) Result {
	t.Helper()
	values := map[string]any{
		"stages": map[string]any{"denoiser": map[string]any{"autoscaling": map[string]any{"kind": "keda", "minReplicas": 0}}},
		"monitoring": map[string]any{
			"podMonitor": map[string]any{"enabled": true}, "prometheusRule": map[string]any{"enabled": true, "labels": map[string]any{"release": "stack"}}, "dashboard": map[string]any{"enabled": true},
		},
	}
	results, err := Render(t.Context(), chart(t), []Set{{Name: "monitoring", Release: "y", Namespace: "studio", KubeVersion: KubeVersion, Values: values, Text: true}})
	broken(t, err)
	verdict(t, "monitoring", wrong(results[0])...)
	return results[0]
}

// expressions are those of the alerts and of the dashboard, by where they stand.
func expressions(t *testing.T, r Result) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, o := range r.Objects {
		switch o.Kind {
		case "PrometheusRule":
			alert := regexp.MustCompile(`(?s)- alert: (\w+)\n(.*?)\n +(?:for|labels):`)
			expr := regexp.MustCompile(`(?s)expr: (?:>-)?(.*)`)
			for _, m := range alert.FindAllStringSubmatch(o.Text, -1) {
				found["alert "+m[1]] = strings.Join(strings.Fields(expr.FindStringSubmatch(m[2])[1]), " ")
			}
			if n := strings.Count(o.Text, "- alert:"); n != len(found) {
				verdict(t, o.Name, fmt.Sprintf("%d alerts, and %d expressions were found", n, len(found)))
			}
		case "ConfigMap":
			if !strings.Contains(o.Text, `grafana_dashboard: "1"`) {
				verdict(t, o.Name, "Grafana's sidecar finds no label")
			}
		}
	}
	data, err := os.ReadFile(filepath.Join(chart(t), "dashboards", "triptych.json"))
	broken(t, err)
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	broken(t, json.Unmarshal(data, &dashboard))
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			verdict(t, "dashboard", fmt.Sprintf("two panels have the id %d", p.ID))
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			found[fmt.Sprintf("panel %d %s %s", p.ID, p.Title, target.RefID)] = strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
		}
	}
	return found
}

// Prometheus' own parser takes every expression, and each selects the release's series alone.
func TestExpressions(t *testing.T) {
	r := monitored(t)
	all := expressions(t, r)
	names := slices.Sorted(maps.Keys(all))
	program, err := tool.Path(t.Context(), "promql")
	broken(t, err)
	var in strings.Builder
	for _, name := range names {
		broken(t, json.NewEncoder(&in).Encode(all[name]))
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	broken(t, err)
	answers := json.NewDecoder(strings.NewReader(string(out)))
	for _, name := range names {
		var p struct {
			Error     string
			Selectors []struct {
				Metric string
				Labels []string
			}
		}
		broken(t, answers.Decode(&p))
		var problems []string
		if p.Error != "" {
			problems = append(problems, p.Error)
		}
		if len(p.Selectors) == 0 && p.Error == "" {
			problems = append(problems, "it selects nothing")
		}
		for _, s := range p.Selectors {
			if !slices.Contains(s.Labels, "namespace") || !slices.Contains(s.Labels, "pod") {
				problems = append(problems, s.Metric+" is not the release's alone")
			}
		}
		if strings.HasPrefix(name, "alert") && strings.Contains(all[name], "$") {
			problems = append(problems, "a placeholder was left: "+all[name])
		}
		verdict(t, name, problems...)
	}
	if len(names) < 30 {
		verdict(t, "monitoring", fmt.Sprintf("only %d expressions were found", len(names)))
	}
	if missing := all["alert TriptychStageMissing"]; !strings.Contains(missing, `kind=~"decoder|encoder"`) {
		verdict(t, "alert TriptychStageMissing", "a kind that may go to zero is missed: "+missing)
	}
}
