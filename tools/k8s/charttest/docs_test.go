package charttest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// README.md is what helm-docs makes of values.yaml, and says of every value what it is.
func TestReadme(t *testing.T) {
	dir := chart(t)
	want, said, err := program(t, "helm-docs", "--dry-run", "--chart-search-root", dir)
	if err != nil {
		verdict(t, "helm-docs", said)
		return
	}
	have, err := os.ReadFile(filepath.Join(dir, "README.md"))
	broken(t, err)
	verdict(t, "README.md", differs("it says", string(have), "and helm-docs -c charts/triptych would write", want)...)
	rows := 0
	for line := range strings.Lines(want) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) < 4 || strings.HasPrefix(line, "| Key ") {
			continue
		}
		rows++
		if strings.Trim(cells[len(cells)-1], "| ") == "" {
			verdict(t, "values.yaml", fmt.Sprintf("%s has no description", strings.Trim(cells[0], "| ")))
			continue
		}
		verdict(t, cells[0])
	}
	if rows < 50 {
		verdict(t, "README.md", fmt.Sprintf("only %d values are in its table", rows))
	}
}

// The schema knows no value that values.yaml does not have, so that none is secret.
func TestSchemaKeys(t *testing.T) {
	dir := chart(t)
	results, err := Render(t.Context(), dir, []Set{{Release: "y", KubeVersion: KubeVersion, Text: true}})
	broken(t, err)
	data, err := os.ReadFile(filepath.Join(dir, "values.schema.json"))
	broken(t, err)
	var schema map[string]any
	broken(t, json.Unmarshal(data, &schema))
	definitions, _ := schema["definitions"].(map[string]any)
	var walk func(path string, schema map[string]any, values any)
	walk = func(path string, schema map[string]any, values any) {
		if name, ok := strings.CutPrefix(fmt.Sprint(schema["$ref"]), "#/definitions/"); ok {
			schema, _ = definitions[name].(map[string]any)
		}
		properties, _ := schema["properties"].(map[string]any)
		have, _ := values.(map[string]any)
		if len(properties) > 0 && schema["additionalProperties"] != false {
			verdict(t, path, "the schema takes any key there")
		}
		for _, key := range slices.Sorted(maps.Keys(properties)) {
			value, ok := have[key]
			below := strings.TrimPrefix(path+"."+key, ".")
			// What overrides another value has its keys and no values of its own, and affinity has Kubernetes' form.
			if below == "global" || below == "colocated" || below == "stageDefaults.model" || below == "stageDefaults.cache" || path == "stageDefaults.affinity" || path == "orchestrator.affinity" {
				continue
			}
			if !ok {
				verdict(t, below, "the schema knows it, and values.yaml does not have it")
				continue
			}
			verdict(t, below)
			property, _ := properties[key].(map[string]any)
			walk(below, property, value)
		}
	}
	walk("", schema, results[0].Values)
}
