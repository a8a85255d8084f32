package pipeline_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// sets are the components of each turn of a styled request.
var sets = map[stagetest.Op][]string{
	stagetest.OpEncode:  {"tiny/text_encoder", "ink/text_style"},
	stagetest.OpDenoise: {"tiny/unet", "ink/unet_style", "grain/unet_style"},
	stagetest.OpDecode:  {"tiny/vae.decoder"},
}

// TestAdapters: adapters that a request names are members of its turns: they are planned, loaded, held with the others and evicted
// for them, within a budget that the largest turn needs to the byte.
func TestAdapters(t *testing.T) {
	roomy := up(t)
	spec := roomy.styled(t)
	plan := roomy.planned(t, spec)
	budget := int64(0)
	for op, want := range sets {
		f := takes(plan, op)
		var got []string
		for _, w := range f.Weights {
			got = append(got, w.Component)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is planned with %q, want %q", op, got, want)
		}
		budget = max(budget, f.WeightsBytes()+f.ScratchBytes)
	}
	quiet := roomy.good(t, spec)
	if bytes.Equal(quiet.images()[0], roomy.good(t, roomy.spec(t)).images()[0]) {
		t.Error("the adapters made no difference")
	}

	f := fleettest.New(t, fleettest.Trio()...)
	for _, s := range f.Services {
		s.Edit(func(i *stage.Info) { i.MemoryBudgetBytes = budget })
		s.Start()
	}
	f.Known(t)
	r := over(f)
	tight := r.good(t, spec)
	if !bytes.Equal(tight.images()[0], quiet.images()[0]) || tight.summary.PeakBytes != budget {
		t.Errorf("the image differs, or %d bytes were taken at most, want all of %d", tight.summary.PeakBytes, budget)
	}
	for op, want := range sets {
		for _, kind := range stage.Kinds() {
			for _, w := range r.Service(kind).Works(string(op)) {
				if !slices.Equal(w.Components, want) {
					t.Errorf("%s with %q, want %q", op, w.Components, want)
				}
			}
		}
	}
	loads, evictions := map[string]int{}, map[string]int{}
	for _, e := range r.Events.All() {
		switch {
		case e.Action == residency.Loaded:
			loads[e.Component]++
		case e.Action == residency.Release && e.Class == residency.Evicted:
			evictions[e.Component]++
		}
	}
	once := map[string]int{"tiny/text_encoder": 1, "ink/text_style": 1, "tiny/unet": 1, "ink/unet_style": 1, "grain/unet_style": 1, "tiny/vae.decoder": 1}
	if !maps.Equal(loads, once) {
		t.Errorf("loaded %v, want %v", loads, once)
	}
	if delete(once, "tiny/vae.decoder"); !maps.Equal(evictions, once) {
		t.Errorf("evicted %v, want %v", evictions, once)
	}
}

// TestAdaptersOnAnotherReplica: work that is lost goes on from its checkpoint where another service loads the same adapters.
func TestAdaptersOnAnotherReplica(t *testing.T) {
	const kind = stage.KindDenoiser
	quiet := up(t)
	want := quiet.good(t, quiet.styled(t))
	r := over(fleettest.New(t, append(fleettest.Trio(), fleettest.NewService(kind, "other"))...))
	first, second := r.Service(kind), r.Services[len(r.Services)-1]
	for _, s := range r.Services[:len(r.Services)-1] {
		s.Start()
	}
	r.Known(t)
	spec := r.styled(t)
	gate := first.Script.Hold(stagetest.OpDenoise, 8)
	j := r.start(fleettest.Soon(t), "job", spec)
	entered(t, gate)
	j.events.Await(t, "the steps before", func(e pipeline.Event) bool {
		p, ok := e.(pipeline.Progress)
		return ok && p.Kind == kind && p.Step == 7
	})
	second.Start()
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	if <-j.done; j.err != nil {
		t.Fatal(j.err)
	}
	same(t, j, want)
	works := second.Works("denoise")
	if len(works) != 1 || works[0].Resume == nil || works[0].Resume.Step != 5 || !slices.Equal(works[0].Components, sets[stagetest.OpDenoise]) {
		t.Errorf("the other one worked %d times, not once from step 5 with the adapters", len(works))
	}
}
