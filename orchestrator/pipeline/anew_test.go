package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func notFinite() error { return stage.Errorf(stage.NotFinite, "scripted NaN") }

// TestNotFinite: weights that gave no finite numbers are evicted and loaded once more in the same request, whose work begins
// again from its start; the image is the same.
func TestNotFinite(t *testing.T) {
	spec := up(t).spec(t)
	quiet := up(t).good(t, spec)
	for kind, at := range map[stage.Kind]struct {
		op   stagetest.Op
		step int
	}{stage.KindEncoder: {stagetest.OpEncode, 1}, stage.KindDenoiser: {stagetest.OpDenoise, 8}, stage.KindDecoder: {stagetest.OpDecode, 1}} {
		r := up(t)
		r.script(kind).Fail(at.op, at.step, notFinite())
		j := r.good(t, spec)
		same(t, j, quiet)
		if w := only[pipeline.Warning](j); len(w) != 1 || w[0].Code != pipeline.WeightsReread {
			t.Errorf("%v: warnings %+v", kind, w)
		}
		r.turnover(t, kind, residency.Loaded, residency.Evict, residency.Loaded)
		if !slices.ContainsFunc(only[pipeline.Residency](j), func(e pipeline.Residency) bool { return e.Class == residency.Stale }) {
			t.Errorf("%v: the request did not hear of the eviction", kind)
		}
		if d := r.Service(stage.KindDenoiser).Works("denoise"); kind == stage.KindDenoiser && (len(d) != 2 || d[1].Resume != nil) {
			t.Errorf("%d denoises, not two from the start", len(d))
		}
		r.idle(t)
	}
}

// TestNotFiniteAgain: the second time it is the error, and the next request has the weights read anew.
func TestNotFiniteAgain(t *testing.T) {
	r := over(fleettest.New(t, fleettest.Trio()...))
	var tries atomic.Int32
	r.Service(stage.KindDecoder).Before = func(_ context.Context, call string) error {
		if call != "decode" || tries.Add(1) > 2 {
			return nil
		}
		return notFinite()
	}
	for _, s := range r.Services {
		s.Start()
	}
	spec := r.spec(t)
	if j := r.run(t, spec); stage.ReasonOf(j.err) != stage.NotFinite || tries.Load() != 2 {
		t.Errorf("ended with %v after %d tries", j.err, tries.Load())
	}
	r.good(t, spec)
	r.turnover(t, stage.KindDecoder, residency.Loaded, residency.Evict, residency.Loaded, residency.Evict, residency.Loaded)
	r.idle(t)
}

// turnover waits until the record tells of these loads of a kind's weights and evictions of stale ones, and no others.
func (r *rig) turnover(t *testing.T, kind stage.Kind, want ...residency.Action) {
	t.Helper()
	var told []residency.Action
	r.Events.Await(t, fmt.Sprintf("%v of the %v", want, kind), func(e residency.Event) bool {
		if e.Kind == kind && (e.Action == residency.Loaded || e.Action == residency.Evict && e.Class == residency.Stale) {
			told = append(told, e.Action)
		}
		return slices.Equal(told, want)
	})
}
