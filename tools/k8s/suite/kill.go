//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/tools/k8s/cluster"
)

// kill is what dies in the middle of denoising, while callers work.
func kill() theme {
	return theme{name: "kill", needs: realNode, setup: installSmall, checks: []check{
		{"kill -9 of the denoiser's runtime in the middle of denoising: none fails, all bit-identical", killRuntime},
		{"kill -9 of the denoiser's container in the middle of denoising: none fails, all bit-identical", killContainer},
		{"deletion of the denoiser's pod in the middle of denoising: none fails, all bit-identical", deletePod},
		{"deletion of the denoiser's pod without grace in the middle of denoising: none fails, all bit-identical", deletePodNow},
		{"uninstall leaves nothing, no container either", uninstallNode},
	}}
}

// interrupt makes a long picture beside 8 callers, does something to the one denoiser once the long
// picture is in the middle of its steps, and lets the callers go on for a while.
func (t *T) interrupt(ctx context.Context, what string, do func(pod) error) error {
	if _, err := t.reference(ctx, long); err != nil {
		return err
	}
	conn, err := t.dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	failed := l.next(ctx, callers/2)
	var once sync.Once
	var done error
	var at time.Time
	begun := time.Now()
	if failed == nil {
		failed = t.same(ctx, conn, long, func(event *triptychv1alpha1.GenerateResponse) {
			if p := event.GetProgress(); p.GetStage() == "denoiser" && p.GetStep() >= long.steps/3 {
				once.Do(func() {
					at = time.Now()
					var victim pod
					if victim, done = t.onePod(ctx, "denoiser"); done == nil {
						done = do(victim)
					}
				})
			}
		})
	}
	if failed != nil {
		failed = fmt.Errorf("the long picture, after %.1f s: %w", time.Since(begun).Seconds(), failed)
	} else if at.IsZero() {
		failed = errors.New("the long picture was never in the middle of denoising")
	}
	took := time.Since(at).Seconds()
	if failed == nil && done == nil {
		failed = l.next(ctx, 2*callers)
	}
	line, err := l.end()
	if err == nil && failed == nil && done == nil {
		t.Measure("%s: the picture was there %.1f s later; %d callers: %s", what, took, callers, line)
	}
	return errors.Join(done, failed, err)
}

// process is one of the denoiser's processes: 0 is the service, 1 its runtime.
func (t *T) process(p pod, index int) (cluster.Container, int, error) {
	container, err := t.cluster.Container(p.Metadata.UID, p.container("denoiser"))
	if err != nil {
		return container, 0, err
	}
	pids, err := container.Processes()
	if err == nil && len(pids) != 2 {
		err = fmt.Errorf("the denoiser's container has %d processes, expected the service and its runtime", len(pids))
	}
	if err != nil {
		return container, 0, err
	}
	return container, pids[index], nil
}

func killRuntime(ctx context.Context, t *T) error {
	err := t.interrupt(ctx, "kill -9 of a runtime", func(p pod) error {
		container, pid, err := t.process(p, 1)
		if err != nil {
			return err
		}
		return container.Kill(pid)
	})
	if err != nil {
		return err
	}
	p, err := t.onePod(ctx, "denoiser")
	if err == nil && p.Status.ContainerStatuses[0].RestartCount != 0 {
		err = errors.New("the kubelet started the container again: the service should have started its runtime again itself")
	}
	return err
}

func killContainer(ctx context.Context, t *T) error {
	err := t.interrupt(ctx, "kill -9 of a service's container", func(p pod) error {
		container, pid, err := t.process(p, 0)
		if err != nil {
			return err
		}
		return container.Kill(pid)
	})
	if err != nil {
		return err
	}
	return eventually(ctx, time.Minute, func(ctx context.Context) error {
		p, err := t.onePod(ctx, "denoiser")
		if err == nil && p.Status.ContainerStatuses[0].RestartCount == 0 {
			err = errors.New("the kubelet did not start the container again")
		}
		return err
	})
}

func deletePod(ctx context.Context, t *T) error {
	return t.interrupt(ctx, "deletion of a pod", func(p pod) error {
		_, err := t.Kubectl(ctx, "delete", "pod", p.Metadata.Name, "--wait=false")
		return err
	})
}

func deletePodNow(ctx context.Context, t *T) error {
	return t.interrupt(ctx, "deletion of a pod without grace", func(p pod) error {
		_, err := t.Kubectl(ctx, "delete", "pod", p.Metadata.Name, "--wait=false", "--grace-period=0", "--force")
		return err
	})
}
