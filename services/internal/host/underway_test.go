package host

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/triptych-serving/triptych/stage"
)

// TestUnderway: what was begun before is waited for, of that component alone.
func TestUnderway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u underway
		ends := []func(){u.begin("m"), u.begin("n", "m"), u.begin("n")}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := u.settle(ctx, "m"); !errors.Is(err, context.Canceled) {
			t.Errorf("without patience: %v", err)
		}
		settled := make(chan error, 1)
		go func() { settled <- u.settle(t.Context(), "m") }()
		synctest.Wait()
		later := u.begin("m")
		for _, end := range ends[:2] {
			if len(settled) > 0 {
				t.Error("settled while calls are under way")
			}
			end()
			synctest.Wait()
		}
		if err := <-settled; err != nil {
			t.Error(err)
		}
		later()
		ends[2]()
		if len(u.calls) > 0 {
			t.Errorf("%d calls are kept", len(u.calls))
		}
	})
}

// TestKillDuringSettle: a child that dies has settled, and one that is yet to come has no work.
func TestKillDuringSettle(t *testing.T) {
	hand := newFakeTime()
	o := options(stage.KindEncoder, once(t, "hold encode 2")...)
	begun := watchLog(&o, "turn encode")
	e := open(t, o, hand.clock())
	load(t, e)
	encoded, settled := make(chan error, 1), make(chan error, 1)
	go func() {
		encoded <- take(t.Context(), e)
	}()
	await(t, "Encode to begin", begun)
	go func() { settled <- e.Settle(t.Context(), component(e)) }()
	kill(t, e)
	wantDied(t, e, await(t, "Encode to end", encoded))
	if err := await(t, "Settle to end", settled); err != nil {
		t.Errorf("Settle when the child has died: %v", err)
	}
	restart := hand.expect(t, 0)
	if err := e.Settle(t.Context(), component(e)); err != nil {
		t.Errorf("Settle without a child: %v", err)
	}
	close(restart.end)
	wantFresh(t, e, 2)
}
