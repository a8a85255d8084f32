//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// scaling is stages scaled by hand while callers work.
func scaling() theme {
	return theme{name: "scaling", needs: realNode, setup: installSmall, checks: []check{
		{"denoiser 1 -> 2 -> 1 under load: the new one works within 5 s of being ready, none fails", scaleDenoiser},
		{"encoder 1 -> 3 -> 1 under load: the new ones work within 5 s of being ready, none fails", scaleEncoder},
		{"uninstall leaves nothing, no container either", uninstallNode},
	}}
}

func scaleDenoiser(ctx context.Context, t *T) error {
	return t.scaleUnderLoad(ctx, "denoiser", 2, wait)
}

// wait asks for nothing.
func wait(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// scaleEncoder asks for pictures of many prompts at the same moment once the new encoders are there: an
// encoder keeps what it made of the last prompts, so that those of the other callers cost it nothing.
func scaleEncoder(ctx context.Context, t *T) error {
	for _, p := range prompts() {
		if _, err := t.reference(ctx, p); err != nil {
			return err
		}
	}
	return t.scaleUnderLoad(ctx, "encoder", 3, func(ctx context.Context) error { return t.burst(context.WithoutCancel(ctx), prompts()) })
}

// prompts are pictures of more prompts than an encoder keeps, of which its part is the largest.
func prompts() (all []picture) {
	for i := range 3 * callers {
		all = append(all, picture{prompt: fmt.Sprintf("cool face number %d", i), seed: 3, steps: 1})
	}
	return all
}

// burst asks for pictures at the same moment.
func (t *T) burst(ctx context.Context, pictures []picture) error {
	conn, err := t.dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	failed := make(chan error, len(pictures))
	for _, p := range pictures {
		go func() { failed <- t.same(ctx, conn, p, nil) }()
	}
	for range pictures {
		err = errors.Join(err, <-failed)
	}
	return err
}

// scaleUnderLoad goes from one replica to several and back. How long a new one is without work counts
// from the moment when the API server says that it is ready; more is asked for again and again once the
// orchestrator knows it.
func (t *T) scaleUnderLoad(ctx context.Context, part string, replicas int, more func(context.Context) error) error {
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	failed := l.next(ctx, callers/2)
	if failed == nil {
		failed = t.newcomers(ctx, part, replicas, more)
	}
	if failed == nil {
		failed = l.next(ctx, callers)
	}
	if failed == nil {
		failed = errors.Join(t.scale(ctx, part, 1), t.replicas(ctx, part, 1, true, 2*time.Minute))
	}
	if failed == nil {
		failed = l.next(ctx, callers)
	}
	line, err := l.end()
	t.Measure("%s 1 -> %d -> 1 under load: %s", part, replicas, line)
	return errors.Join(failed, err)
}

// newcomers scales a part out and measures how long each new pod is ready without work.
func (t *T) newcomers(ctx context.Context, part string, replicas int, more func(context.Context) error) error {
	before, err := t.pods(ctx, part)
	if err != nil {
		return err
	}
	watch, err := t.watchWork(ctx)
	if err != nil {
		return err
	}
	defer watch.stop()
	begun := time.Now()
	if err := t.scale(ctx, part, replicas); err != nil {
		return err
	}
	ready := map[string]time.Time{} // by address, as this machine's clock saw it
	err = eventually(ctx, 2*time.Minute, func(ctx context.Context) error {
		pods, err := t.pods(ctx, part)
		if err != nil {
			return err
		}
		for _, p := range pods {
			old := p.Metadata.Name == before[0].Metadata.Name
			if _, seen := ready[p.Status.PodIP]; !old && !seen && !p.readySince().IsZero() {
				ready[p.Status.PodIP] = time.Now()
			}
		}
		if len(ready) != replicas-1 {
			return fmt.Errorf("%d of %d new pods of %s are ready", len(ready), replicas-1, part)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.Measure("%s 1 -> %d under load: ready after %.1f s", part, replicas, time.Since(begun).Seconds())
	if err := t.joined(ctx, part, ready); err != nil {
		return err
	}
	asked := make(chan error, 1)
	asking, stop := context.WithCancel(ctx)
	go func() {
		var failed error
		for asking.Err() == nil && failed == nil {
			failed = more(asking)
		}
		asked <- failed
	}()
	err = t.firstWork(ctx, part, watch, ready)
	stop()
	return errors.Join(err, <-asked)
}

// joined measures how long after being ready the orchestrator may give work to each of the services at
// some addresses, which may be 5 s.
func (t *T) joined(ctx context.Context, part string, ready map[string]time.Time) error {
	for address, since := range ready {
		if err := eventually(ctx, 20*time.Second, func(ctx context.Context) error { return t.choosable(ctx, address) }); err != nil {
			return err
		}
		joined := max(0, time.Since(since))
		t.Measure("a new %s can be chosen for work at most %.1f s after it is ready", part, joined.Seconds())
		if joined > 5*time.Second {
			return fmt.Errorf("the new %s at %s could not be chosen for work until %.1f s after it was ready, expected at most 5 s", part, address, joined.Seconds())
		}
	}
	return nil
}

// firstWork measures how long after being ready each of the services at some addresses has work, which
// may be 5 s.
func (t *T) firstWork(ctx context.Context, part string, watch *workWatch, ready map[string]time.Time) error {
	for address, since := range ready {
		err := eventually(ctx, 20*time.Second, func(context.Context) error {
			if _, works := watch.first(address); !works {
				return fmt.Errorf("the new %s at %s is ready and has no work", part, address)
			}
			return nil
		})
		if err != nil {
			return err
		}
		at, _ := watch.first(address)
		idle := max(0, at.Sub(since))
		t.Measure("a new %s has its first work %.1f s after it is ready", part, idle.Seconds())
		if idle > 5*time.Second {
			return fmt.Errorf("the new %s at %s had no work for %.1f s after it was ready, expected at most 5 s", part, address, idle.Seconds())
		}
	}
	return nil
}

// choosable is nil when the orchestrator may give work to the service at an address.
func (t *T) choosable(ctx context.Context, address string) error {
	samples, err := t.metrics(ctx, t.address(releaseName, 7440))
	if err != nil {
		return err
	}
	for _, s := range samples {
		if s.name == "triptych_stage_up" && s.value == 1 && strings.HasPrefix(s.labels["service"], address+":") {
			return nil
		}
	}
	return fmt.Errorf("triptych_stage_up of %s is not 1", address)
}

// A workWatch notes when each service was first given work.
type workWatch struct {
	stop  context.CancelFunc
	mutex sync.Mutex
	seen  map[string]time.Time // by IP address
}

// watchWork listens to the orchestrator's decisions from now on.
func (t *T) watchWork(ctx context.Context) (*workWatch, error) {
	conn, err := t.dial(nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &workWatch{seen: map[string]time.Time{}, stop: func() {
		cancel()
		_ = conn.Close()
	}}
	stream, err := triptychv1alpha1.NewResidencyServiceClient(conn).WatchResidency(ctx, &triptychv1alpha1.WatchResidencyRequest{})
	if err != nil {
		w.stop()
		return nil, err
	}
	go func() {
		for {
			news, err := stream.Recv()
			if err != nil {
				return
			}
			d := news.GetDecision()
			if d.GetEvent().GetAction() != triptychv1alpha1.ResidencyEvent_ACTION_GRANT {
				continue
			}
			address, _, _ := strings.Cut(d.GetService(), ":")
			w.mutex.Lock()
			if _, known := w.seen[address]; !known {
				w.seen[address] = time.Now()
			}
			w.mutex.Unlock()
		}
	}()
	return w, nil
}

// first is when the service at an address was first given work.
func (w *workWatch) first(address string) (time.Time, bool) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	at, ok := w.seen[address]
	return at, ok
}

// outUnderLoad measures how long an autoscaler takes under load until there is a second denoiser.
func (t *T) outUnderLoad(ctx context.Context, autoscaler string) error {
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	failed := eventually(ctx, 2*time.Minute, func(ctx context.Context) error {
		d, err := t.deployment(ctx, "denoiser")
		if err == nil && d.Status.ReadyReplicas < 2 {
			err = fmt.Errorf("the denoiser has %d replicas, %d ready", d.Spec.Replicas, d.Status.ReadyReplicas)
		}
		return err
	})
	took := time.Since(begun)
	if failed == nil {
		failed = l.next(ctx, callers)
	}
	line, err := l.end()
	t.Measure("%s: a second denoiser ready after %.1f s; %s", autoscaler, took.Seconds(), line)
	return errors.Join(failed, err)
}
