package pipeline_test

import (
	"slices"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestEqualParts: two models with equal encoders and decoders take one of each, whichever is asked for.
func TestEqualParts(t *testing.T) {
	r := fleettest.New(t, fleettest.Trio()...)
	for _, s := range r.Services {
		s.Edit(func(i *stage.Info) {
			for n := range i.Models {
				if c := &i.Models[n]; c.Model == stagetest.Model || c.Model == stagetest.OtherModel {
					if c.Digest = "equal"; s.Kind == stage.KindDenoiser {
						c.Digest = c.Model
					}
				}
			}
		})
		s.Start()
	}
	r.Known(t)
	p := over(r)
	for _, name := range []string{stagetest.Model, stagetest.OtherModel, stagetest.Model} {
		spec := p.spec(t)
		var err error
		if spec.Model, err = r.Fleet.Model(fleettest.Soon(t), name, time.Minute); err != nil {
			t.Fatal(err)
		}
		p.good(t, spec)
	}
	shared := min(stagetest.Model, stagetest.OtherModel)
	loads := map[stage.Kind][]string{}
	r.Events.Await(t, "all loads", func(e residency.Event) bool {
		if e.Action == residency.Loaded {
			loads[e.Kind] = append(loads[e.Kind], e.Model)
		}
		return len(loads[stage.KindEncoder]) > 0 && len(loads[stage.KindDenoiser]) > 1 && len(loads[stage.KindDecoder]) > 0
	})
	for _, e := range r.Service(stage.KindEncoder).Encodes() {
		if e.Model != shared {
			t.Errorf("%s was encoded by another", e.Model)
		}
	}
	for i, d := range r.Service(stage.KindDenoiser).Denoises() {
		if want := []string{stagetest.Model, stagetest.OtherModel, stagetest.Model}[i]; d.Model != want {
			t.Errorf("denoised by %s, want %s", d.Model, want)
		}
	}
	for _, kind := range []stage.Kind{stage.KindEncoder, stage.KindDecoder} {
		var held []string
		for _, c := range r.Keeper.Snapshot().Components {
			if c.Kind == kind {
				held = append(held, c.Model)
			}
		}
		if !slices.Equal(held, []string{shared}) || !slices.Equal(loads[kind], held) {
			t.Errorf("the %v holds %v and loaded %v, want %s", kind, held, loads[kind], shared)
		}
	}
}
