package pipeline_test

import (
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

var (
	older = stage.Edition{Stamp: "s1", Identity: "aaaa"}
	newer = stage.Edition{Stamp: "s2", Identity: "bbbb"}
)

// edited is a rig whose services tell of editions.
func edited(t *testing.T) *rig {
	r := over(fleettest.New(t, fleettest.Trio()...))
	r.change(older, stage.Kinds()...)
	for _, s := range r.Services {
		s.Start()
	}
	return r
}

func (r *rig) change(e stage.Edition, kinds ...stage.Kind) {
	for _, k := range kinds {
		r.script(k).Change(e)
	}
}

// TestEditions: a request whose model's files change is made with one edition of them or ends with ModelChanged. held is
// where it waits while the files of some stages change.
func TestEditions(t *testing.T) {
	all := stage.Kinds()
	untouched := stage.Edition{Stamp: "s3", Identity: older.Identity}
	for name, c := range map[string]struct {
		at      stage.Kind
		op      stagetest.Op
		kinds   []stage.Kind // that change
		to      stage.Edition
		refused bool
	}{
		// Nothing was made in those that changed, and all else would be made the same again.
		"denoiser before its turn": {stage.KindEncoder, stagetest.OpEncode, all[1:2], newer, false},
		"decoder before its turn":  {stage.KindDenoiser, stagetest.OpDenoise, all[2:], newer, false},
		// What was made with the old ones is there.
		"all behind the encoder":  {stage.KindEncoder, stagetest.OpEncode, all, newer, true},
		"between two images":      {stage.KindDenoiser, stagetest.OpDenoise, all[1:2], newer, true},
		"all behind the denoiser": {stage.KindDecoder, stagetest.OpDecode, all, newer, true},
		// Written again with the same.
		"touched": {stage.KindDenoiser, stagetest.OpDenoise, all, untouched, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := edited(t)
			spec := r.spec(t)
			spec.ImageCount = 2
			gate := r.script(c.at).Hold(c.op, 1)
			j := r.start(fleettest.Soon(t), "job", spec)
			entered(t, gate)
			r.change(c.to, c.kinds...)
			gate.Release()
			<-j.done
			switch {
			case !c.refused && j.err != nil:
				t.Error(j.err)
			case !c.refused && len(j.images()) != 2:
				t.Errorf("%d images", len(j.images()))
			case c.refused && stage.ReasonOf(j.err) != stage.ModelChanged:
				t.Errorf("%v, want ModelChanged", j.err)
			}
			r.good(t, r.spec(t)) // a new request has the new files
			for _, k := range c.kinds {
				loads, changes := 0, 0
				for _, e := range r.Events.All() {
					if e.Kind == k && e.Action == residency.Loaded {
						loads++
						if e.Class == residency.Changed {
							changes++
						}
					}
				}
				if want := max(0, min(loads-1, 1)); c.to != untouched && changes != want || c.to == untouched && changes > 0 {
					t.Errorf("of %d loads of the %v %d tell of other files", loads, k, changes)
				}
			}
			r.idle(t)
		})
	}
}

// TestChangedBeforeTheRequest: files that changed in the moment before are no matter.
func TestChangedBeforeTheRequest(t *testing.T) {
	r := edited(t)
	r.good(t, r.spec(t))
	spec := r.spec(t) // of what was seen before
	r.change(newer, stage.Kinds()...)
	j := r.good(t, spec)
	if w := only[pipeline.Warning](j); len(w) > 3 { // that the stages had to be asked what they hold
		t.Errorf("warnings %+v", w)
	}
	r.idle(t)
}

// TestChangingUnderLoad: files that are written while they are loaded are loaded again, for a while.
func TestChangingUnderLoad(t *testing.T) {
	r := up(t)
	r.script(stage.KindDenoiser).Fail(stagetest.OpLoad, 2, stage.Errorf(stage.ModelChanged, "scripted change"))
	r.good(t, r.spec(t))
	r.idle(t)
}

// TestChangingUnderWork: streamed weights that turn out to be others end a request that has made something with them, and are
// read anew for one that has not.
func TestChangingUnderWork(t *testing.T) {
	for step, refused := range map[int]bool{2: false, 8: true} {
		r := up(t)
		r.script(stage.KindDenoiser).Fail(stagetest.OpDenoise, step, stage.Errorf(stage.ModelChanged, "scripted change"))
		j := r.run(t, r.spec(t))
		if refused != (stage.ReasonOf(j.err) == stage.ModelChanged) || !refused && j.err != nil {
			t.Errorf("at step %d: %v", step, j.err)
		}
		r.Events.Await(t, "an eviction", func(e residency.Event) bool { return e.Class == residency.Stale })
		r.idle(t)
	}
}
