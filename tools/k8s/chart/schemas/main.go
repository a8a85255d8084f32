// Command schemas writes a strict JSON schema for each kind of object that Kubernetes, KEDA, cert-manager and
// Prometheus' operator know, out of what their Go modules carry. Fields that a kind does not have are refused.
//
//	schemas -into FOLDER    writes FOLDER/KIND-GROUP-VERSION.json, in small letters
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A module is a pinned one, and where in it the schemas are.
type module struct {
	path, version string
	sum           string // as in a go.sum
	files         string // what to read in it
}

const kubernetes = "k8s.io/kubernetes"

var modules = []module{
	{kubernetes, "v1.36.3", "h1:qDQdoMiluAE2Eab6Fa52YV+WjiGz9mZFFoagEA6cI+o=", "api/openapi-spec/swagger.json"},
	{"github.com/kedacore/keda/v2", "v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=", "config/crd/bases/*.yaml"},
	{"github.com/cert-manager/cert-manager", "v1.21.2", "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=", "deploy/crds/*.yaml"},
	{"github.com/prometheus-operator/prometheus-operator", "v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=", "example/prometheus-operator-crd/*.yaml"},
}

func main() {
	into := flag.String("into", "", "the folder to write to")
	flag.Parse()
	if *into == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: schemas -into FOLDER")
		os.Exit(2)
	}
	if err := run(*into); err != nil {
		fmt.Fprintln(os.Stderr, "schemas:", err)
		os.Exit(1)
	}
}

func run(into string) error {
	if err := os.MkdirAll(into, 0o755); err != nil { //nolint:gosec // they are for everybody
		return err
	}
	var metadata object // the schema of metadata, with its definitions, once Kubernetes was read
	for _, m := range modules {
		dir, err := m.download()
		if err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(m.files)))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("%s %s has no file %s", m.path, m.version, m.files)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			var kinds map[string]object
			if m.path == kubernetes {
				kinds, metadata, err = fromSwagger(data)
			} else {
				kinds, err = fromResources(data, metadata)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			for name, schema := range kinds {
				if err := write(filepath.Join(into, name+".json"), schema); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// download returns the module's folder in Go's cache, if what is there is what is pinned.
func (m module) download() (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", m.path+"@"+m.version)
	cmd.Dir = os.TempDir() // a folder of no module
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go mod download %s@%s: %w\n%s", m.path, m.version, err, out)
	}
	var got struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", err
	}
	if got.Sum != m.sum {
		return "", fmt.Errorf("%s %s has the sum %s, and %s is pinned", m.path, m.version, got.Sum, m.sum)
	}
	return got.Dir, nil
}

// name is a schema's file as kubeconform's {{.ResourceKind}}{{.KindSuffix}} asks for it: of the group only its first word.
func name(kind, group, version string) string {
	first, _, _ := strings.Cut(group, ".")
	if first != "" {
		first += "-"
	}
	return strings.ToLower(kind + "-" + first + version)
}

func write(path string, schema object) error {
	data, err := json.Marshal(schema)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644) //nolint:gosec // it is for everybody
}
