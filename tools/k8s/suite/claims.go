//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// claims are cards by dynamic resource allocation: what a driver publishes, and the real scheduler's
// choice among it.
func claims() theme {
	return theme{name: "claims", setup: publishCards, checks: []check{
		{"dra: a selector in CEL picks the large cards", claimedGPU},
		{"dra: without a fitting card the pod says that claims cannot be allocated", unclaimableGPU},
		{"dra: the three containers of a colocated pod share one card", colocatedClaim},
		{"uninstall leaves nothing", uninstall},
	}}
}

// publishCards makes two nodes publish a card of 80 GiB and one of 24 GiB each.
func publishCards(ctx context.Context, t *T) error {
	class := "/apis/resource.k8s.io/v1/deviceclasses/gpu.nvidia.com"
	t.Cleanup(func(ctx context.Context) error { return t.cluster.API.Delete(ctx, class) })
	failed := t.cluster.API.Apply(ctx, class, values{
		"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": values{"name": "gpu.nvidia.com"},
		"spec": values{"selectors": []values{{"cel": values{"expression": `device.driver == "gpu.nvidia.com"`}}}},
	})
	card := func(name, product, memory string) values {
		return values{"name": name, "attributes": values{"productName": values{"string": product}}, "capacity": values{"memory": values{"value": memory}}}
	}
	for _, node := range []string{"gpu-0", "gpu-1"} {
		slice := "/apis/resource.k8s.io/v1/resourceslices/" + node
		t.Cleanup(func(ctx context.Context) error { return t.cluster.API.Delete(ctx, slice) })
		failed = errors.Join(failed, t.cluster.API.Apply(ctx, slice, values{
			"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": values{"name": node},
			"spec": values{
				"driver": "gpu.nvidia.com", "nodeName": node, "pool": values{"name": node, "generation": 1, "resourceSliceCount": 1},
				"devices": []values{card("large", "H100", "80Gi"), card("small", "L4", "24Gi")},
			},
		}))
	}
	return failed
}

// large are values of a pool that claims cards of at least 40 GiB.
func (t *T) large(replicas int) values {
	pool := gpu("dra", replicas)
	return with(t.small(), "stages.denoiser", with(pool, "gpu.dra.selectors",
		[]string{`device.capacity["gpu.nvidia.com"].memory.compareTo(quantity("40Gi")) >= 0`}))
}

func claimedGPU(ctx context.Context, t *T) error {
	if err := t.Install(ctx, t.large(2)); err != nil {
		return err
	}
	out, err := t.Kubectl(ctx, "get", "resourceclaims", "-o", `jsonpath={range .items[*]}{.status.allocation.devices.results[0].device}{" "}{end}`)
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(out); got != "large large" {
		return fmt.Errorf("allocated: %q, expected both large cards", got)
	}
	return nil
}

func unclaimableGPU(ctx context.Context, t *T) error {
	// A third pod, and no update of the others: their cards are taken while they live.
	if err := t.scale(ctx, "denoiser", 3); err != nil {
		return err
	}
	return t.event(ctx, "FailedScheduling", 20*time.Second, "cannot allocate all claims")
}

func colocatedClaim(ctx context.Context, t *T) error {
	if err := t.Install(ctx, with(with(t.small(), "topology", "colocated"), "colocated", with(gpu("dra", 2), "memoryBudget", "20GiB")), "--force-conflicts"); err != nil {
		return err
	}
	if err := t.on(ctx, "colocated", "gpu", 2); err != nil {
		return err
	}
	out, err := t.Kubectl(ctx, "get", "pods", "-l", "app.kubernetes.io/component=colocated",
		"-o", `jsonpath={range .items[*]}{.spec.resourceClaims[*].name}:{.spec.containers[*].resources.claims[*].name}{"\n"}{end}`)
	if err != nil {
		return err
	}
	for line := range strings.Lines(strings.TrimSpace(out)) {
		claim, users, _ := strings.Cut(strings.TrimSpace(line), ":")
		if users != strings.Join([]string{claim, claim, claim}, " ") {
			return fmt.Errorf("claim %q is used by containers as %q, expected one claim and three users", claim, users)
		}
	}
	return says(out, ":")
}
