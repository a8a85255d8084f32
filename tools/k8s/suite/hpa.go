//go:build linux

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// hpa is a HorizontalPodAutoscaler on the backlog that the orchestrator tells.
func hpa() theme {
	return theme{name: "hpa", needs: realNode, setup: func(ctx context.Context, t *T) error {
		return errors.Join(t.Install(ctx, with(t.small(), "stages.denoiser.replicas", 2)), t.serveExternalMetrics(ctx))
	}, checks: []check{
		{"from fixed replicas to an autoscaler, by the runbook: never fewer than before", fixedToHPA},
		{"the backlog of 8 callers scales the denoiser out, and nothing else; none fails", backlogOut},
		{"helm upgrade of another stage leaves the autoscaler's number alone", upgradeWhileScaled},
		{"without work it goes back to the least", backlogIn},
		{"back to fixed replicas: the number is the chart's again", hpaToFixed},
		{"uninstall leaves nothing, no container either", uninstallNode},
	}}
}

// scaled are values with an autoscaler for the denoiser that is quick enough to be watched.
func (t *T) scaled(kind string, fewest int) values {
	return with(t.small(), "stages.denoiser", values{"autoscaling": values{
		"kind": kind, "minReplicas": fewest, "maxReplicas": 3, "targetSeconds": 2,
		"scaleUp": values{"pods": 2, "periodSeconds": 5}, "scaleDown": values{"stabilizationSeconds": 10, "pods": 3, "periodSeconds": 5},
		"keda": values{"pollingInterval": 5, "cooldownPeriod": 10},
	}})
}

// watchReplicas notes the fewest and the most replicas that a deployment was to have until stop.
func (t *T) watchReplicas(ctx context.Context, part string) (stop func() (fewest, most int)) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	fewest, most := 1<<30, 0
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if d, err := t.deployment(ctx, part); err == nil {
				fewest, most = min(fewest, d.Spec.Replicas), max(most, d.Spec.Replicas)
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return func() (int, int) {
		cancel()
		<-ended
		return fewest, most
	}
}

// handOver gives the field replicas an owner that stays while the chart lets go of it, as the runbook in
// docs/kubernetes.md does.
func (t *T) handOver(ctx context.Context, part string, replicas int) error {
	text, err := json.Marshal(values{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": values{"name": name(part)}, "spec": values{"replicas": replicas},
	})
	if err != nil {
		return err
	}
	file, err := t.file("handover.json", text)
	if err != nil {
		return err
	}
	_, err = t.Kubectl(ctx, "apply", "--server-side", "--field-manager=handover", "--validate=false", "--filename="+file)
	return err
}

func fixedToHPA(ctx context.Context, t *T) error {
	stop := t.watchReplicas(ctx, "denoiser")
	err := t.handOver(ctx, "denoiser", 2)
	if err == nil {
		err = t.Install(ctx, t.scaled("hpa", 2))
	}
	if err == nil {
		err = t.replicas(ctx, "denoiser", 2, true, time.Minute)
	}
	fewest, _ := stop()
	if err == nil && fewest < 2 {
		err = fmt.Errorf("for a moment the denoiser was to have %d replicas", fewest)
	}
	if err != nil {
		return err
	}
	t.Measure("from 2 fixed replicas to an HPA by the runbook: the Deployment never had fewer than %d", fewest)
	if err := t.Install(ctx, t.scaled("hpa", 1)); err != nil {
		return err
	}
	return t.replicas(ctx, "denoiser", 1, true, 2*time.Minute)
}

func backlogOut(ctx context.Context, t *T) error {
	if err := t.replicas(ctx, "denoiser", 1, true, 2*time.Minute); err != nil {
		return err
	}
	stop := t.watchReplicas(ctx, "encoder")
	err := t.outUnderLoad(ctx, "HPA on triptych_backlog_seconds")
	if _, most := stop(); most != 1 {
		err = errors.Join(err, fmt.Errorf("the encoder had %d replicas", most))
	}
	return err
}

func upgradeWhileScaled(ctx context.Context, t *T) error {
	before, err := t.deployment(ctx, "denoiser")
	if err != nil {
		return err
	}
	if err := t.Install(ctx, with(t.scaled("hpa", 1), "stages.encoder.podAnnotations", values{"example.com/rolled": "1"})); err != nil {
		return err
	}
	after, err := t.deployment(ctx, "denoiser")
	if err == nil && before.Spec.Replicas > 1 && after.Spec.Replicas < before.Spec.Replicas-1 {
		err = fmt.Errorf("the denoiser has %d replicas after the upgrade, it had %d", after.Spec.Replicas, before.Spec.Replicas)
	}
	return err
}

func backlogIn(ctx context.Context, t *T) error {
	begun := time.Now()
	if err := t.replicas(ctx, "denoiser", 1, true, 3*time.Minute); err != nil {
		return err
	}
	t.Measure("HPA without work: back to 1 replica after %.1f s (stabilisation 10 s)", time.Since(begun).Seconds())
	return nil
}

func hpaToFixed(ctx context.Context, t *T) error {
	if err := t.Install(ctx, with(t.small(), "stages.denoiser.replicas", 2), "--force-conflicts"); err != nil {
		return err
	}
	return t.replicas(ctx, "denoiser", 2, true, time.Minute)
}
