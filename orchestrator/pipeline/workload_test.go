package pipeline_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestOutline: what a job will ask for is told before it is planned, turn by turn, with what it computes and all weights; it is
// what the job announces but for the footprints.
func TestOutline(t *testing.T) {
	r := up(t)
	q := r.spec(t)
	q.ImageCount = 2
	got := r.Outline(q.model, q.job().Spec)
	var kinds []stage.Kind
	for _, n := range got {
		kinds = append(kinds, n.Kind)
		if w := n.Footprints[""].Weights; len(w) != 1 || w[0].Component != n.Components[0] || w[0].Bytes <= 0 || w[0].Bytes != w[0].WholeBytes {
			t.Errorf("%v takes %+v", n, w)
		}
	}
	encoder, denoiser, decoder := stage.KindEncoder, stage.KindDenoiser, stage.KindDecoder
	if diff := cmp.Diff([]stage.Kind{encoder, denoiser, decoder, denoiser, decoder}, kinds); diff != "" {
		t.Fatal(diff)
	}
	for i, want := range []residency.Workload{
		{Model: stagetest.Model, Turn: "encode", Evaluations: 1},
		{Model: stagetest.Model, Turn: "denoise", Shape: got[1].Work.Shape, Evaluations: 12},
		{Model: stagetest.Model, Turn: "decode", Shape: got[2].Work.Shape, Evaluations: 1},
	} {
		if diff := cmp.Diff(want, got[i].Work); diff != "" {
			t.Error(diff)
		}
	}
	if s := got[1].Work.Shape; !strings.Contains(s, "width=32") || !strings.Contains(s, "height=24") {
		t.Errorf("the shape of a turn is %q", s)
	}
	gate := r.script(encoder).Hold(stagetest.OpEncode, 1)
	j := r.start(t.Context(), "job", q)
	entered(t, gate)
	var announced []residency.Workload
	for _, a := range r.Rig.Keeper.Snapshot().Announced {
		if announced = append(announced, a.Need.Work); a.Times != 2 {
			t.Errorf("%v is announced %d times", a.Need, a.Times)
		}
	}
	gate.Release()
	<-j.done
	if diff := cmp.Diff([]residency.Workload{got[1].Work, got[2].Work}, announced); diff != "" {
		t.Errorf("while it encodes the job announces: %s", diff)
	}
}

// TestOutlineOfAPicture: a picture to begin with takes a part of the steps.
func TestOutlineOfAPicture(t *testing.T) {
	r := up(t)
	q := r.spec(t).with("strength", stage.FloatOption(0.3))

	q.inputs = stage.Values{{Name: "init_image", File: stagetest.Photo(32, 24)}}
	for _, n := range r.Outline(q.model, q.job().Spec) {
		want := 1
		if n.Kind == stage.KindDenoiser {
			want = 4 // of 12
		}
		if n.Work.Evaluations != want {
			t.Errorf("%v: %d evaluations, want %d", n, n.Work.Evaluations, want)
		}
	}
}

// TestEvaluated: each evaluation is told once, and of work that goes on from a checkpoint those that are done again as well.
func TestEvaluated(t *testing.T) {
	for name, c := range map[string]struct {
		fail int // the step of the first try
		want int64
	}{
		"quiet": {0, 12},
		"dies":  {8, 12 + 2}, // behind step 7, and goes on from 5
	} {
		t.Run(name, func(t *testing.T) {
			r := up(t)
			var told atomic.Int64
			r.Evaluated = func(model string, n int) {
				if model != stagetest.Model || n <= 0 {
					t.Errorf("%d evaluations of %q", n, model)
				}
				told.Add(int64(n))
			}
			if c.fail > 0 {
				r.script(stage.KindDenoiser).Fail(stagetest.OpDenoise, c.fail, died())
			}
			r.good(t, r.spec(t))
			if got := told.Load(); got != c.want {
				t.Errorf("%d evaluations are told, want %d", got, c.want)
			}
			done := 0
			r.Events.Await(t, "the end of the decoder's work", func(e residency.Event) bool {
				if e.Class == residency.WorkDone && e.Kind == stage.KindDenoiser {
					done += e.Work.Evaluations
				}
				return e.Class == residency.WorkDone && e.Kind == stage.KindDecoder
			})
			if c.fail == 0 && done != 12 || c.fail > 0 && done != 7 { // a death is no end of work
				t.Errorf("%d evaluations in the record", done)
			}
		})
	}
}
