//go:build linux

package suite

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/tools/k8s/cluster"
)

// gpuNodes are four nodes of four cards in two zones, and one without.
func gpuNodes() []cluster.FakeNode {
	nodes := []cluster.FakeNode{{Name: "cpu-0", Zone: "zone-0"}}
	for i := range 4 {
		nodes = append(nodes, cluster.FakeNode{
			Name: fmt.Sprintf("gpu-%d", i), Zone: fmt.Sprintf("zone-%d", i%2),
			Labels:   map[string]string{"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
			Taints:   []string{"nvidia.com/gpu"},
			Capacity: map[string]string{"nvidia.com/gpu": "4", "nvidia.com/gpu.shared": "16", "nvidia.com/mig-2g.20gb": "3"},
		})
	}
	return nodes
}

// gpu are values of a pool of a mode.
func gpu(mode string, replicas int) values {
	return values{"replicas": replicas, "gpu": values{"mode": mode}}
}

// placement is where the scheduler puts the pods of each mode.
func placement() theme {
	return theme{name: "placement", checks: []check{
		{"none: pods stay off the nodes with cards", withoutGPU},
		{"exclusive: each pod has a card of its own, zones are used alike", exclusiveGPU},
		{"shared: pods of all stages take slices", sharedGPU},
		{"mig: a pod takes a partition", migGPU},
		{"colocated: cards that a plugin hands out are refused, since it gives one to one container", colocatedExclusive},
		{"too few cards: the pod says which resource is missing", tooFewGPUs},
		{"uninstall leaves nothing", uninstall},
	}}
}

// on checks that pods are on so many nodes whose names begin with a prefix, and on no others.
func (t *T) on(ctx context.Context, part, prefix string, want int) error {
	count, err := t.nodes(ctx, part)
	if err != nil {
		return err
	}
	total := 0
	for node, n := range count {
		if !strings.HasPrefix(node, prefix) {
			return fmt.Errorf("%d pods of %s on node %q, expected only %s-*", n, part, node, prefix)
		}
		total += n
	}
	if total != want {
		return fmt.Errorf("%d pods of %s, expected %d: %v", total, part, want, count)
	}
	return nil
}

func withoutGPU(ctx context.Context, t *T) error {
	begun := time.Now()
	if err := t.Install(ctx, t.small()); err != nil {
		return err
	}
	t.Measure("install on fake nodes until all is ready: %.1f s", time.Since(begun).Seconds())
	return t.on(ctx, "", "cpu", 4)
}

func exclusiveGPU(ctx context.Context, t *T) error {
	if err := t.Install(ctx, with(t.small(), "stages.denoiser", gpu("exclusive", 4))); err != nil {
		return err
	}
	if err := t.on(ctx, "denoiser", "gpu", 4); err != nil {
		return err
	}
	count, err := t.nodes(ctx, "denoiser")
	if err != nil {
		return err
	}
	if even, odd := count["gpu-0"]+count["gpu-2"], count["gpu-1"]+count["gpu-3"]; even != 2 || odd != 2 {
		return fmt.Errorf("%d pods in zone-0 and %d in zone-1, expected 2 each", even, odd)
	}
	if err := t.asks(ctx, "denoiser", "nvidia.com/gpu", "1"); err != nil {
		return err
	}
	return t.on(ctx, "encoder", "cpu", 1)
}

// asks checks the resource that each container of a part has for a limit.
func (t *T) asks(ctx context.Context, part, resource, count string) error {
	out, err := t.Kubectl(ctx, "get", "pods", "-l", "app.kubernetes.io/component="+part,
		"-o", `jsonpath={range .items[*].spec.containers[*]}{.resources.limits.`+strings.ReplaceAll(resource, ".", `\.`)+`}{"\n"}{end}`)
	if err != nil {
		return err
	}
	for have := range strings.FieldsSeq(out) {
		if have != count {
			return fmt.Errorf("a container of %s asks for %q of %s, expected %s", part, have, resource, count)
		}
	}
	return says(out, count)
}

func sharedGPU(ctx context.Context, t *T) error {
	// They share a folder of the node, which restricted pods may not.
	if err := t.cluster.CreateNamespace(ctx, t.Namespace, map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}); err != nil {
		return err
	}
	v := t.small()
	for _, stage := range []string{"encoder", "denoiser", "decoder"} {
		v = with(v, "stages."+stage, with(gpu("shared", 2), "memoryBudget", "20GiB"))
	}
	if err := t.Install(ctx, v); err != nil {
		return err
	}
	for _, stage := range []string{"encoder", "denoiser", "decoder"} {
		if err := t.on(ctx, stage, "gpu", 2); err != nil {
			return err
		}
	}
	return t.asks(ctx, "decoder", "nvidia.com/gpu.shared", "1")
}

func migGPU(ctx context.Context, t *T) error {
	const partition = "nvidia.com/mig-2g.20gb"
	if err := t.Install(ctx, with(with(t.small(), "stages.decoder", gpu("mig", 3)), "stages.decoder.gpu.resource", partition)); err != nil {
		return err
	}
	if err := t.asks(ctx, "decoder", partition, "1"); err != nil {
		return err
	}
	return t.on(ctx, "decoder", "gpu", 3)
}

func colocatedExclusive(ctx context.Context, t *T) error {
	for _, mode := range []string{"exclusive", "mig"} {
		pool := with(with(gpu(mode, 1), "gpu.resource", "nvidia.com/gpu"), "memoryBudget", "20GiB")
		out, err := t.install(ctx, with(with(t.small(), "topology", "colocated"), "colocated", pool))
		if err := refused(out, err, "colocated", mode); err != nil {
			return err
		}
	}
	return nil
}

func tooFewGPUs(ctx context.Context, t *T) error {
	v := with(t.small(), "stages.denoiser", gpu("exclusive", 17))
	out, err := t.install(ctx, v, "--wait", "--timeout=6s")
	if err := refused(out, err); err != nil {
		return err
	}
	return t.event(ctx, "FailedScheduling", 20*time.Second, "Insufficient nvidia.com/gpu")
}

func uninstall(ctx context.Context, t *T) error { return t.Uninstall(ctx) }
