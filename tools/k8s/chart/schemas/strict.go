package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// An object is one of JSON.
type object = map[string]any

const (
	prefix     = "#/definitions/"
	objectMeta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
)

// either holds a quantity, or a number or name of a port.
var either = regexp.MustCompile(`(IntOrString|resource\.Quantity)$`)

// fromSwagger makes a schema for each kind of Kubernetes' own, and that of an object's metadata. Each has the definitions
// that it needs and no others.
func fromSwagger(data []byte) (kinds map[string]object, metadata object, err error) {
	var swagger struct{ Definitions map[string]object }
	if err := json.Unmarshal(data, &swagger); err != nil {
		return nil, nil, err
	}
	definitions := map[string]any{}
	for key, d := range swagger.Definitions {
		if either.MatchString(key) {
			d = object{"type": []any{"string", "number"}}
		}
		if _, ok := d["properties"]; ok && d["additionalProperties"] == nil {
			d["additionalProperties"] = false
		}
		definitions[key] = references(d)
	}
	if definitions[objectMeta] == nil {
		return nil, nil, fmt.Errorf("no definition of %s", objectMeta)
	}
	kinds = map[string]object{}
	for key, d := range swagger.Definitions {
		list, _ := d["x-kubernetes-group-version-kind"].([]any)
		for _, v := range list {
			gvk, _ := v.(object)
			kind, _ := gvk["kind"].(string)
			group, _ := gvk["group"].(string)
			version, _ := gvk["version"].(string)
			if kind == "" || version == "" {
				return nil, nil, fmt.Errorf("the definition %s has the kind %v", key, v)
			}
			kinds[name(kind, group, version)] = closed(key, definitions)
		}
	}
	return kinds, closed(objectMeta, definitions), nil
}

// closed is the schema of a definition together with all that it refers to.
func closed(key string, all map[string]any) object {
	need := map[string]any{}
	var visit func(any)
	visit = func(v any) {
		switch v := v.(type) {
		case object:
			if to, ok := v["$ref"].(string); ok {
				to = strings.TrimPrefix(to, prefix)
				if _, seen := need[to]; !seen {
					need[to] = all[to]
					visit(all[to])
				}
			}
			for _, w := range v {
				visit(w)
			}
		case []any:
			for _, w := range v {
				visit(w)
			}
		}
	}
	need[key] = all[key]
	visit(all[key])
	return object{"$ref": prefix + key, "definitions": need}
}

// references drops what stands beside a reference, which schemas may not have.
func references(v any) any {
	switch v := v.(type) {
	case object:
		if to, ok := v["$ref"].(string); ok {
			return object{"$ref": to}
		}
		for key, w := range v {
			v[key] = references(w)
		}
	case []any:
		for i, w := range v {
			v[i] = references(w)
		}
	}
	return v
}

var separator = regexp.MustCompile(`(?m)^---\s*$`)

// fromResources makes a schema for each version of the custom resources that a file defines.
func fromResources(data []byte, metadata object) (map[string]object, error) {
	kinds := map[string]object{}
	for _, text := range separator.Split(string(data), -1) {
		var crd struct {
			Kind string
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Served bool
					Schema struct{ OpenAPIV3Schema object }
				}
			}
		}
		if err := yaml.Unmarshal([]byte(text), &crd); err != nil {
			return nil, err
		}
		if crd.Kind != "CustomResourceDefinition" {
			continue
		}
		for _, v := range crd.Spec.Versions {
			if !v.Served {
				continue
			}
			schema, _ := strict(v.Schema.OpenAPIV3Schema).(object)
			properties, _ := schema["properties"].(object)
			if properties == nil {
				return nil, fmt.Errorf("%s %s has no properties", crd.Spec.Names.Kind, v.Name)
			}
			properties["metadata"] = object{"$ref": metadata["$ref"]}
			schema["definitions"] = metadata["definitions"]
			kinds[name(crd.Spec.Names.Kind, crd.Spec.Group, v.Name)] = schema
		}
	}
	return kinds, nil
}

// strict closes the objects of a schema of Kubernetes' dialect and says its extensions in JSON Schema's own words.
func strict(v any) any {
	switch v := v.(type) {
	case object:
		if v["x-kubernetes-int-or-string"] == true {
			return object{"type": []any{"string", "integer"}}
		}
		w := maps.Clone(v)
		for key := range w {
			w[key] = strict(w[key])
		}
		_, described := w["properties"].(object)
		if described && w["type"] == "object" && w["additionalProperties"] == nil && w["x-kubernetes-preserve-unknown-fields"] != true {
			w["additionalProperties"] = false
		}
		return w
	case []any:
		for i, w := range v {
			v[i] = strict(w)
		}
	}
	return v
}
