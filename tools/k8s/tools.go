//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/triptych-serving/triptych/tools/k8s/tool"
)

// programs are what a cluster and its checks run, by what they are for.
var programs = map[string][]string{
	"control plane": {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "helm"},
	"fake nodes":    {"kwok"},
	"real node":     {"kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "coredns"},
	"autoscalers":   {"metrics-server", "keda-operator", "keda-adapter"},
}

// modules are those of whose files something is read, with the checksums that a go.sum would have.
var modules = map[string]struct{ version, sum string }{
	"sigs.k8s.io/kwok":                                   {"v0.8.0", "h1:OTIOTwgROqPMovcTwxICx2eYQ4AwLpSx5EpjbDKF4SQ="},
	"github.com/kedacore/keda/v2":                        {"v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps="},
	"github.com/cert-manager/cert-manager":               {"v1.21.2", "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68="},
	"github.com/prometheus-operator/prometheus-operator": {"v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="},
}

// A toolbox is what prepare has built and downloaded, so that nothing is fetched inside the sandbox.
type toolbox struct {
	Bin      string
	Folders  map[string]string // of modules
	Triptych string
	Images   []string // archives for a real node
}

// prepare builds the programs that are missing, and the images if there is a real node, and downloads
// the modules.
func prepare(ctx context.Context, dir string, groups ...string) (toolbox, error) {
	box := toolbox{Folders: map[string]string{}}
	for _, group := range groups {
		bin, err := tool.Paths(ctx, programs[group]...)
		if err != nil {
			return box, err
		}
		box.Bin = bin
	}
	if slices.Contains(groups, "real node") {
		root, err := tool.Root()
		if err != nil {
			return box, err
		}
		images := filepath.Join(filepath.Dir(dir), "images")
		if err := errors.Join(os.MkdirAll(images, 0o750), box.buildImages(ctx, root, images)); err != nil {
			return box, err
		}
	}
	for path, m := range modules {
		out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", path+"@"+m.version).Output()
		var have struct{ Dir, Sum, Error string }
		if json.Unmarshal(out, &have) != nil || have.Dir == "" {
			return box, fmt.Errorf("go mod download %s@%s: %s: %w", path, m.version, have.Error, err)
		}
		if have.Sum != m.sum {
			return box, fmt.Errorf("%s@%s has the checksum %s, expected %s", path, m.version, have.Sum, m.sum)
		}
		box.Folders[path] = have.Dir
	}
	return box, nil
}

// save writes what was prepared for the program inside the sandbox.
func (b toolbox) save(dir string) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(filepath.Join(dir, "tools.json"), text, 0o600))
}

// prepared is what save wrote.
func prepared(dir string) (b toolbox, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "tools.json"))
	if err != nil {
		return b, err
	}
	return b, json.Unmarshal(text, &b)
}

// Tool returns the path of a built program.
func (b toolbox) Tool(name string) (string, error) {
	path := filepath.Join(b.Bin, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the program %s was not built: %w", name, err)
	}
	return path, nil
}

// Module returns the folder of a module's files.
func (b toolbox) Module(path string) (string, error) {
	if folder, ok := b.Folders[path]; ok {
		return folder, nil
	}
	return "", fmt.Errorf("the module %s was not downloaded", path)
}
