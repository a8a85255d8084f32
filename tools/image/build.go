package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A binary is the program for a platform.
type binary struct {
	arch, path string
}

// build makes the static binary of the module in root for an architecture of Linux. Nothing of the machine, the
// time or the checkout gets into it, so that the same sources and the same Go give the same bytes.
func build(ctx context.Context, root, out, arch, version string) (binary, error) {
	b := binary{arch: arch, path: filepath.Join(out, "triptych-linux-"+arch)}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.linkedVersion="+version, "-o", b.path, "./cmd/triptych")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return b, fmt.Errorf("go build for linux/%s: %w", arch, err)
	}
	return b, nil
}

// sources tells where modules, by their paths, and Go lie on this machine.
func sources(ctx context.Context, root string, modules []string) (map[string]string, error) {
	list, err := ask(ctx, root, append([]string{"list", "-m", "-f", "{{.Path}}@{{.Version}}\t{{.Dir}}"}, modules...)...)
	if err != nil {
		return nil, err
	}
	goroot, err := ask(ctx, root, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	folders := map[string]string{"go": strings.TrimSpace(goroot)}
	for line := range strings.Lines(list) {
		if module, dir, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			folders[module] = dir
		}
	}
	return folders, nil
}

// ask gives what a go command prints.
func ask(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
