//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// standby is two orchestrators, of which one works.
func standby() theme {
	return theme{name: "standby", needs: realNode, setup: installStandby, checks: []check{
		{"one of two orchestrators is ready, the other says that it is the standby", oneOwner},
		{"kill -9 of the owner: the standby takes over within 15 s, who was served is told to try again", takeover},
		{"deletion of the owner: a caller who repeats what is UNAVAILABLE has every picture", ownerLeaves},
		{"uninstall leaves nothing, no container either", uninstallNode},
	}}
}

// installStandby waits for what can be ready: of two orchestrators one never is.
func installStandby(ctx context.Context, t *T) error {
	if _, err := t.install(ctx, with(t.small(), "orchestrator.replicas", 2)); err != nil {
		return err
	}
	return eventually(ctx, 2*time.Minute, func(ctx context.Context) error {
		if _, err := t.owner(ctx); err != nil {
			return err
		}
		pods, err := t.pods(ctx, "orchestrator")
		if err == nil && len(pods) != 2 {
			err = fmt.Errorf("%d orchestrators, expected 2", len(pods))
		}
		return err
	})
}

// owner is the one orchestrator that is ready.
func (t *T) owner(ctx context.Context) (pod, error) {
	pods, err := t.pods(ctx, "orchestrator")
	if err != nil {
		return pod{}, err
	}
	var ready []pod
	for _, p := range pods {
		if !p.readySince().IsZero() {
			ready = append(ready, p)
		}
	}
	if len(ready) != 1 {
		return pod{}, fmt.Errorf("%d orchestrators are ready, expected 1", len(ready))
	}
	return ready[0], nil
}

func oneOwner(ctx context.Context, t *T) error {
	owner, err := t.owner(ctx)
	if err != nil {
		return err
	}
	if err := t.one(ctx, picture{}); err != nil {
		return err
	}
	pods, err := t.pods(ctx, "orchestrator")
	if err != nil {
		return err
	}
	for _, p := range pods {
		if p.Metadata.Name == owner.Metadata.Name {
			continue
		}
		logs, err := t.Kubectl(ctx, "logs", p.Metadata.Name)
		if err != nil {
			return err
		}
		return says(logs, "standby")
	}
	return errors.New("there is no standby")
}

func takeover(ctx context.Context, t *T) error {
	if _, err := t.reference(ctx, long); err != nil {
		return err
	}
	owner, err := t.owner(ctx)
	if err != nil {
		return err
	}
	conn, err := t.dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	working, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		_, err := generate(ctx, conn, long, func(event *triptychv1alpha1.GenerateResponse) {
			if event.GetProgress().GetStep() > 0 {
				select {
				case working <- struct{}{}:
				default:
				}
			}
		})
		ended <- err
	}()
	select {
	case <-working:
	case err := <-ended:
		return fmt.Errorf("the picture ended before the orchestrator did: %w", err)
	}
	container, err := t.cluster.Container(owner.Metadata.UID, owner.container("orchestrator"))
	if err != nil {
		return err
	}
	pids, err := container.Processes()
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := container.Kill(pids[0]); err != nil {
		return err
	}
	if err := <-ended; status.Code(err) != codes.Unavailable {
		return fmt.Errorf("the request that the dead orchestrator served: expected UNAVAILABLE, got %w", err)
	}
	var took time.Duration
	err = eventually(ctx, time.Minute, func(ctx context.Context) error {
		return t.same(ctx, conn, picture{}, func(event *triptychv1alpha1.GenerateResponse) {
			if took == 0 && event.GetProgress() != nil {
				took = time.Since(begun)
			}
		})
	})
	if err != nil {
		return err
	}
	t.Measure("kill -9 of the orchestrator: a stage works for the next request through the Service %.1f s later, its picture is there after %.1f s", took.Seconds(), time.Since(begun).Seconds())
	if took > 15*time.Second {
		return fmt.Errorf("no stage worked until %.1f s after the owner's death, expected at most 15 s", took.Seconds())
	}
	return eventually(ctx, time.Minute, func(ctx context.Context) error {
		_, err := t.owner(ctx)
		return err
	})
}

// ownerLeaves is what a rolling upgrade does to an orchestrator.
func ownerLeaves(ctx context.Context, t *T) error {
	owner, err := t.owner(ctx)
	if err != nil {
		return err
	}
	conn, err := t.dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := t.Kubectl(ctx, "delete", "pod", owner.Metadata.Name, "--wait=false"); err != nil {
		return err
	}
	refusals := 0
	begun := time.Now()
	var longest time.Duration
	last := begun
	for seed := uint64(0); time.Since(begun) < 40*time.Second; seed = (seed + 1) % seeds {
		err := t.same(ctx, conn, picture{seed: seed}, nil)
		if err == nil {
			longest = max(longest, time.Since(last))
			last = time.Now()
			continue
		}
		delay, ok := retryAfter(err)
		if !ok {
			return fmt.Errorf("after %.1f s a request failed in a way that a caller may not repeat: %w", time.Since(begun).Seconds(), err)
		}
		refusals++
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	t.Measure("deletion of the orchestrator: %d requests were told to try again, longest wait from picture to picture %.1f s", refusals, longest.Seconds())
	if longest > 15*time.Second {
		return fmt.Errorf("there was no picture for %.1f s, expected at most 15 s", longest.Seconds())
	}
	return nil
}

// retryAfter is the delay that an UNAVAILABLE error asks for; a second where the connection failed
// before a server could tell one.
func retryAfter(err error) (time.Duration, bool) {
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.Unavailable {
		return 0, false
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return time.Second, true
}
