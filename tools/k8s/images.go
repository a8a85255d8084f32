//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/triptych-serving/triptych/tools/k8s/cluster"
)

// imageVersion is the tag of Triptych's image in the cluster.
const imageVersion = "test"

// buildImages builds the program, its image and the one of a pod's first process into a folder.
func (b *toolbox) buildImages(ctx context.Context, root, dir string) error {
	build := func(out, pkg string) ([]byte, error) {
		path := filepath.Join(dir, out)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, pkg)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if said, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build %s: %w: %s", pkg, err, said)
		}
		return os.ReadFile(path)
	}
	pause, err := build("pause", "./tools/k8s/pause")
	if err != nil {
		return err
	}
	archive := filepath.Join(dir, "pause.tar")
	if err := cluster.WriteImage(archive, cluster.PauseImage, map[string][]byte{"pause": pause}, "/pause"); err != nil {
		return err
	}
	if _, err := build("triptych", "./cmd/triptych"); err != nil {
		return err
	}
	b.Triptych = filepath.Join(dir, "triptych")
	cmd := exec.CommandContext(ctx, "make", "image", "VERSION="+imageVersion)
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make image: %w: %s", err, said)
	}
	b.Images = []string{archive, filepath.Join(root, "bin", "image.tar")}
	return nil
}
