//go:build linux

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Kubectl runs kubectl as the administrator and returns what it prints; an error has its messages.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.Command(ctx, "", "kubectl", args...)
}

// Helm runs helm as the administrator and returns what it prints; an error has its messages.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	return c.Command(ctx, "", "helm", args...)
}

// Warnings runs one of the built programs and returns its standard error. An error has it as well.
func (c *Cluster) Warnings(ctx context.Context, tool string, args ...string) (string, error) {
	cmd, err := c.command(ctx, tool, args...)
	if err != nil {
		return "", err
	}
	var messages bytes.Buffer
	cmd.Stderr = &messages
	if err := cmd.Run(); err != nil {
		return messages.String(), fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, strings.TrimSpace(messages.String()))
	}
	return messages.String(), nil
}

// Command runs one of the built programs with the administrator's credentials and the given input.
// It returns the standard output; an error has both outputs.
func (c *Cluster) Command(ctx context.Context, input, tool string, args ...string) (string, error) {
	cmd, err := c.command(ctx, tool, args...)
	if err != nil {
		return "", err
	}
	cmd.Stdin = strings.NewReader(input)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", tool, strings.Join(args, " "), err, strings.TrimSpace(messages.String()+"\n"+out.String()))
	}
	return out.String(), nil
}

// command is one of the built programs as the administrator.
func (c *Cluster) command(ctx context.Context, tool string, args ...string) (*exec.Cmd, error) {
	program, err := c.tools.Tool(tool)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = 5 * time.Second
	helm := filepath.Join(c.Dir, "helm")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "HELM_CACHE_HOME="+helm, "HELM_CONFIG_HOME="+helm, "HELM_DATA_HOME="+helm)
	return cmd, nil
}
