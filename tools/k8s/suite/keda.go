//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// keda is the real KEDA with the orchestrator as its scaler.
func keda() theme {
	return theme{name: "scale to zero", needs: autoscalers, setup: func(ctx context.Context, t *T) error {
		_, err := t.install(ctx, t.scaled("keda", 0))
		return err
	}, checks: []check{
		{"metrics-server tells what pods use", topPods},
		{"without work the denoiser goes to zero, and the orchestrator is ready all the same", idleToZero},
		{"the first request wakes it, and its picture is the same", wokenFromZero},
		{"the backlog of 8 callers scales it out; none fails, all bit-identical", kedaOut},
		{"without work it goes back to zero", idleToZero},
		{"from KEDA back to fixed replicas", kedaToFixed},
		{"uninstall leaves nothing, no container either", uninstallNode},
	}}
}

func topPods(ctx context.Context, t *T) error {
	return eventually(ctx, time.Minute, func(ctx context.Context) error {
		out, err := t.Kubectl(ctx, "top", "pods", "--no-headers")
		if err != nil {
			return err
		}
		return says(out, name("orchestrator"), "Mi")
	})
}

func idleToZero(ctx context.Context, t *T) error {
	begun := time.Now()
	if err := t.replicas(ctx, "denoiser", 0, false, 3*time.Minute); err != nil {
		return err
	}
	t.Measure("KEDA without work: denoiser at 0 after %.1f s (poll 5 s, cooldown 10 s)", time.Since(begun).Seconds())
	return eventually(ctx, time.Minute, func(ctx context.Context) error {
		p, err := t.onePod(ctx, "orchestrator")
		if err == nil && p.readySince().IsZero() {
			err = errors.New("the orchestrator is not ready though its denoisers may be none")
		}
		return err
	})
}

func wokenFromZero(ctx context.Context, t *T) error {
	begun := time.Now()
	picked := make(chan error, 1)
	go func() { picked <- t.one(ctx, picture{}) }()
	err := eventually(ctx, time.Minute, func(ctx context.Context) error {
		d, err := t.deployment(ctx, "denoiser")
		if err == nil && d.Spec.Replicas == 0 {
			err = errors.New("the denoiser is still to have 0 replicas")
		}
		return err
	})
	woken := time.Since(begun)
	if err := errors.Join(err, <-picked); err != nil {
		return err
	}
	t.Measure("KEDA external-push: denoiser 0 -> 1 %.1f s after the first request, its picture after %.1f s", woken.Seconds(), time.Since(begun).Seconds())
	if woken > 5*time.Second {
		return fmt.Errorf("it took %.1f s until the denoiser was to have a replica, expected about a second", woken.Seconds())
	}
	return nil
}

func kedaOut(ctx context.Context, t *T) error {
	return t.outUnderLoad(ctx, "KEDA on the backlog")
}

func kedaToFixed(ctx context.Context, t *T) error {
	if err := t.Install(ctx, t.small(), "--force-conflicts"); err != nil {
		return err
	}
	return errors.Join(t.replicas(ctx, "denoiser", 1, true, time.Minute), t.one(ctx, picture{}))
}
