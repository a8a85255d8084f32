package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/yannh/kubeconform/pkg/resource"
	"github.com/yannh/kubeconform/pkg/validator"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// A checker looks at objects one by one. It remembers those that it has seen, since most sets share most of theirs.
type checker struct {
	validator validator.Validator
	seen      sync.Map // *checked by its text
}

// checked is an object and what is wrong with it by itself.
type checked struct {
	text       string
	kind, name string
	fields     map[string]any
	problems   []string
}

func newChecker(schemas string) (*checker, error) {
	if _, err := os.Stat(schemas); err != nil {
		return nil, fmt.Errorf("schemas: %w", err)
	}
	v, err := validator.New([]string{filepath.Join(schemas, "{{.ResourceKind}}{{.KindSuffix}}.json")}, validator.Opts{Strict: true})
	return &checker{validator: v}, err
}

// object parses and checks an object.
func (c *checker) object(text string) *checked {
	if o, ok := c.seen.Load(text); ok {
		return o.(*checked)
	}
	o := &checked{text: text}
	r := c.validator.ValidateResource(resource.Resource{Bytes: []byte(text)})
	switch {
	case r.Status == validator.Valid:
	case r.Err != nil:
		o.problem("%s", strings.Join(strings.Fields(r.Err.Error()), " "))
	default:
		o.problem("it was not validated: it is empty or no object")
	}
	if err := yaml.Unmarshal([]byte(text), &o.fields); err != nil {
		o.problem("%v", err)
	}
	metadata := at(o.fields, "metadata")
	o.kind, o.name = word(o.fields["kind"]), word(metadata["name"])
	for _, p := range validation.IsDNS1123Label(o.name) {
		o.problem("metadata.name: %s", p)
	}
	o.labels("metadata", metadata)
	template := at(o.fields, "spec", "template")
	o.labels("spec.template.metadata", at(template, "metadata"))
	if pod := o.pod(); pod != nil {
		o.mounts(pod)
	}
	c.seen.Store(text, o)
	return o
}

func (o *checked) problem(format string, a ...any) {
	o.problems = append(o.problems, fmt.Sprintf(format, a...))
}

// labels checks what a server would refuse of labels, which schemas do not say.
func (o *checked) labels(where string, metadata map[string]any) {
	for key, value := range at(metadata, "labels") {
		for _, p := range append(validation.IsQualifiedName(key), validation.IsValidLabelValue(word(value))...) {
			o.problem("%s.labels %s: %q: %s", where, key, value, p)
		}
	}
}

// pod is the specification of the object's pods, if it has any.
func (o *checked) pod() map[string]any {
	switch o.kind {
	case "Pod":
		return at(o.fields, "spec")
	case "Deployment", "StatefulSet", "DaemonSet", "Job":
		return at(o.fields, "spec", "template", "spec")
	}
	return nil
}

// mounts checks that names within a pod are sound, are there once and lead to something.
func (o *checked) mounts(pod map[string]any) {
	volumes, used, claims := o.named("volumes", list(pod["volumes"])), map[string]bool{}, o.named("resourceClaims", list(pod["resourceClaims"]))
	containers := append(list(pod["initContainers"]), list(pod["containers"])...)
	o.named("containers", containers)
	ports := map[string]bool{}
	for _, c := range containers {
		name := word(c["name"])
		o.named(name+" env", list(c["env"]))
		paths := map[string]bool{}
		for _, m := range list(c["volumeMounts"]) {
			volume, path := word(m["name"]), word(m["mountPath"])
			used[volume] = true
			if !volumes[volume] {
				o.problem("container %s mounts a volume %q that the pod has not", name, volume)
			}
			if paths[path] {
				o.problem("container %s mounts two volumes at %s", name, path)
			}
			paths[path] = true
		}
		for _, claim := range list(at(c, "resources")["claims"]) {
			if !claims[word(claim["name"])] {
				o.problem("container %s uses a claim %q that the pod has not", name, claim["name"])
			}
		}
		for _, p := range list(c["ports"]) {
			if number := fmt.Sprint(p["containerPort"]); ports[number] {
				o.problem("two containers listen on port %s", number)
			} else {
				ports[number] = true
			}
			if n := word(p["name"]); n != "" {
				for _, wrong := range validation.IsValidPortName(n) {
					o.problem("container %s: port %s: %s", name, n, wrong)
				}
			}
		}
	}
	for volume := range volumes {
		if !used[volume] {
			o.problem("no container mounts the volume %q", volume)
		}
	}
}

// named are the names of a list, each of which must be there once.
func (o *checked) named(what string, items []map[string]any) map[string]bool {
	names := map[string]bool{}
	for _, item := range items {
		name := word(item["name"])
		if names[name] {
			o.problem("%s: %q is there twice", what, name)
		}
		names[name] = true
		if strings.HasSuffix(what, "env") {
			continue
		}
		for _, p := range validation.IsDNS1123Label(name) {
			o.problem("%s: %q: %s", what, name, p)
		}
	}
	return names
}

// at is the object below those keys, or nil.
func at(v map[string]any, keys ...string) map[string]any {
	for _, key := range keys {
		v, _ = v[key].(map[string]any)
	}
	return v
}

// list are the objects of a list.
func list(v any) (items []map[string]any) {
	all, _ := v.([]any)
	for _, item := range all {
		if o, ok := item.(map[string]any); ok {
			items = append(items, o)
		}
	}
	return items
}

func word(v any) string {
	s, _ := v.(string)
	return s
}
