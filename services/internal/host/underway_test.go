package host

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestUnderway: what was begun before is waited for, of that model alone.
func TestUnderway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u underway
		ends := []func(){u.begin("m"), u.begin("m"), u.begin("n")}
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
