package residency

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// TestSettle: a lease whose work may go on counts until the stage says that it does not; its caller waits no longer than
// it wants to, and hears nothing later. It is asked again as long as it cannot say.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 150, Options{})
		denoiser := h.stages[stage.KindDenoiser]
		denoiser.settles = make(chan chan error)
		r := h.request(stage.KindDenoiser)
		heard := 0
		r.Observer.Event = func(Event) { heard++ }
		lease, err := h.Acquire(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		during, before := h.used(), heard
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 2 { // again does nothing
			lease.Settle(ctx)
		}
		for _, err := range []error{stage.Errorf(stage.StageUnreachable, "not there"), errors.New("no answer"), context.DeadlineExceeded} {
			(<-denoiser.settles) <- err
			synctest.Wait()
			if used := h.used(); used != during || !h.Snapshot().Stages[0].Leased && !h.Snapshot().Stages[1].Leased && !h.Snapshot().Stages[2].Leased {
				t.Errorf("%d bytes count after %v, want %d", used, err, during)
			}
		}
		(<-denoiser.settles) <- nil
		synctest.Wait()
		if used := h.used(); used != during-10 {
			t.Errorf("%d bytes count when the work has ended, %d before", used, during)
		}
		if heard != before {
			t.Errorf("the observer of one who left heard of %d events more", heard-before)
		}
		lease.Release()
	})
}

// TestSettleEnds: a stage that is lost, a runtime that has died or a stage that cannot tell leave nothing to wait for.
func TestSettleEnds(t *testing.T) {
	for name, end := range map[string]func(h *house, denoiser *fake){
		"gone":    func(h *house, _ *fake) { h.Leave("denoiser") },
		"lost":    func(h *house, _ *fake) { h.tell(seen{"denoiser", 2}) },
		"closed":  func(h *house, _ *fake) { h.Close() },
		"died":    func(_ *house, f *fake) { (<-f.settles) <- stage.Errorf(stage.RuntimeDied, "dead") },
		"old one": func(_ *house, f *fake) { (<-f.settles) <- stage.Errorf(stage.StageProtocolUnsupported, "what?") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, 150, Options{})
				denoiser := h.stages[stage.KindDenoiser]
				denoiser.settles = make(chan chan error)
				lease := h.acquire(stage.KindDenoiser)
				settled := make(chan struct{})
				go func() {
					defer close(settled)
					lease.Settle(t.Context())
				}()
				synctest.Wait()
				begin := time.Now()
				end(h, denoiser)
				<-settled
				if took := time.Since(begin); took > 0 {
					t.Errorf("it took %v", took)
				}
				lease.Settle(t.Context()) // again does nothing
				lease.Release()
			})
		})
	}
}
