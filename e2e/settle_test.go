//go:build linux

package e2e

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestCancelledWorkCounts: callers give up in the middle of an evaluation that takes long, in a budget that holds the
// denoiser, its scratch and little else, while another job waits. What the runtime still holds counts until it is back:
// no load and no work finds the device out of memory, and nothing is evicted for that.
func TestCancelledWorkCounts(t *testing.T) {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Seed: ptr(uint64(42)), Steps: ptr(int32(200)), WidthPx: ptr(int32(384)), HeightPx: ptr(int32(384)), Sampler: "euler"}
	short := &triptychv1alpha1.GenerationSpec{Prompt: "owl", Seed: ptr(uint64(1)), Steps: ptr(int32(2))}
	probe := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(1)), WidthPx: spec.WidthPx, HeightPx: spec.HeightPx}
	largest, sum, _ := footprints(t, probe)
	budget := largest + largest/50
	if budget >= sum {
		t.Fatalf("a budget of %d holds all, %d: the test shows nothing", budget, sum)
	}
	s := up(t, "--memory-budget", strconv.FormatInt(budget, 10))
	watching, stop := context.WithCancel(t.Context())
	defer stop()
	watch, err := triptychv1alpha1.NewResidencyServiceClient(s.conn).WatchResidency(watching, &triptychv1alpha1.WatchResidencyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var watched sync.WaitGroup
	failed, exhausted, most := 0, 0, int64(0)
	watched.Go(func() {
		for {
			news, err := watch.Recv()
			if err != nil {
				return
			}
			r := news.GetDecision().GetEvent()
			most = max(most, r.GetUsedBytes())
			if r.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_FAILED {
				failed++
				t.Logf("%v", r)
			}
			if r.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_OUT_OF_MEMORY {
				exhausted++
				t.Logf("%v", r)
			}
		}
	})
	warned := 0
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		working, answered := make(chan struct{}), make(chan error, 1)
		go func() {
			var once sync.Once
			_, err := s.generate(ctx, spec, func(e *triptychv1alpha1.GenerateResponse) {
				if p := e.GetProgress(); p.GetStage() == "denoiser" && p.GetStep() > 0 {
					once.Do(func() { close(working) })
				}
			})
			answered <- err
		}()
		select {
		case <-working:
		case err := <-answered:
			t.Fatalf("the long request: %v\n%s", err, s.log)
		}
		waits, done := make(chan struct{}), make(chan error, 1)
		go func() {
			var once sync.Once
			events, err := s.generate(t.Context(), short, func(e *triptychv1alpha1.GenerateResponse) {
				if e.GetResidency().GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_WAIT {
					once.Do(func() { close(waits) })
				}
			})
			for _, e := range events {
				if w := e.GetWarning(); w != nil {
					t.Logf("%v", w)
					warned++
				}
			}
			done <- err
		}()
		<-waits
		begin := time.Now()
		cancel()
		if err := <-answered; status.Code(err) != codes.Canceled {
			t.Errorf("the request that was cancelled: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("the request that waited: %v", err)
		}
		t.Logf("the one that waited had its picture after %v", time.Since(begin))
	}
	stop()
	watched.Wait()
	t.Logf("budget %d, most reserved %d; %d loads failed, %d evictions for want of memory, %d warnings", budget, most, failed, exhausted, warned)
	if failed+exhausted+warned > 0 {
		t.Error("the ledger counted as free what the runtime still held")
	}
}
