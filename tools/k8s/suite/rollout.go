//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/triptych-serving/triptych/tools/k8s/cluster"
)

// rollout is what happens to pods whose cards are all there are.
func rollout() theme {
	return theme{name: "rollout", checks: []check{
		{"a rolling update ends though every card is taken", updateWithoutSpare},
		{"the disruption budget lets one pod be evicted and not a second", disruptionBudget},
		{"kubectl drain ends and never takes more than the budget", drain},
		{"uninstall leaves nothing", uninstall},
	}}
}

// taken are values with which the denoisers hold every card.
func (t *T) taken() values { return with(t.small(), "stages.denoiser", gpu("exclusive", 16)) }

func updateWithoutSpare(ctx context.Context, t *T) error {
	if err := t.Install(ctx, t.taken()); err != nil {
		return err
	}
	begun := time.Now()
	if err := t.Install(ctx, with(t.taken(), "stages.denoiser.podAnnotations", values{"example.com/rolled": "1"})); err != nil {
		return err
	}
	t.Measure("rolling update of 16 pods that hold all 16 cards: %.1f s", time.Since(begun).Seconds())
	d, err := t.deployment(ctx, "denoiser")
	if err == nil && d.Status.UpdatedReplicas != 16 {
		err = fmt.Errorf("%d of 16 pods are new", d.Status.UpdatedReplicas)
	}
	return err
}

// evict asks for a pod to go, as a drain does.
func (t *T) evict(ctx context.Context, pod string) error {
	path := "/api/v1/namespaces/" + t.Namespace + "/pods/" + pod
	body := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":%q}}`, pod, t.Namespace)
	_, err := t.cluster.API.Do(ctx, http.MethodPost, path+"/eviction", "application/json", []byte(body))
	return err
}

func disruptionBudget(ctx context.Context, t *T) error {
	// On fake nodes a replacement is ready at once; with nowhere to go it is not, and the budget is used up.
	if _, err := t.Kubectl(ctx, "cordon", "-l", "type=kwok"); err != nil {
		return err
	}
	uncordon := func(ctx context.Context) error {
		_, err := t.Kubectl(ctx, "uncordon", "-l", "type=kwok")
		return err
	}
	t.Cleanup(uncordon)
	pods, err := t.pods(ctx, "denoiser")
	if err != nil {
		return err
	}
	if err := t.evict(ctx, pods[0].Metadata.Name); err != nil {
		return fmt.Errorf("the first eviction: %w", err)
	}
	if err := eventually(ctx, 20*time.Second, func(ctx context.Context) error {
		var budget struct {
			Status struct{ CurrentHealthy int }
		}
		if err := t.cluster.API.Get(ctx, "/apis/policy/v1/namespaces/"+t.Namespace+"/poddisruptionbudgets/"+name("denoiser"), &budget); err != nil {
			return err
		}
		if budget.Status.CurrentHealthy != 15 {
			return fmt.Errorf("the budget knows of %d healthy pods, expected 15", budget.Status.CurrentHealthy)
		}
		return nil
	}); err != nil {
		return err
	}
	err = t.evict(ctx, pods[1].Metadata.Name)
	var status *cluster.StatusError
	if !errors.As(err, &status) || status.Code != http.StatusTooManyRequests {
		return fmt.Errorf("the second eviction: expected 429, got %w", err)
	}
	if err := uncordon(ctx); err != nil {
		return err
	}
	return t.replicas(ctx, "denoiser", 16, true, time.Minute)
}

func drain(ctx context.Context, t *T) error {
	// Twelve cards suffice for eight pods when a node of four goes.
	if err := t.Install(ctx, with(t.taken(), "stages.denoiser.replicas", 8)); err != nil {
		return err
	}
	t.Cleanup(func(ctx context.Context) error {
		_, err := t.Kubectl(ctx, "uncordon", "gpu-0")
		return err
	})
	begun := time.Now()
	if _, err := t.Kubectl(ctx, "drain", "gpu-0", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"); err != nil {
		return err
	}
	t.Measure("kubectl drain of a node with cards: %.1f s", time.Since(begun).Seconds())
	if err := t.replicas(ctx, "denoiser", 8, true, time.Minute); err != nil {
		return err
	}
	count, err := t.nodes(ctx, "denoiser")
	if err == nil && count["gpu-0"] > 0 {
		err = fmt.Errorf("%d pods are on the drained node", count["gpu-0"])
	}
	return err
}
