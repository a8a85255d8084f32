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

// equalParts is a rig of two models with equal encoders and decoders, whose own editions differ by the place of the files.
func equalParts(t *testing.T) (r *fleettest.Rig, first, second string) {
	first, second = min(stagetest.Model, stagetest.OtherModel), max(stagetest.Model, stagetest.OtherModel)
	r = fleettest.New(t, fleettest.Trio()...)
	for _, s := range r.Services {
		s.Edit(func(i *stage.Info) {
			for n := range i.Models {
				if c := &i.Models[n]; c.Model == first || c.Model == second {
					if c.Stamp, c.Digest = c.Model, "equal"; s.Kind == stage.KindDenoiser {
						c.Digest = c.Model
					}
				}
			}
		})
		s.Start()
	}
	r.Known(t)
	return r, first, second
}

// TestEqualPartIsRemoved: a job whose parts are another model's goes on with its own when that model is removed.
func TestEqualPartIsRemoved(t *testing.T) {
	r, first, second := equalParts(t)
	p := over(r)
	spec := p.spec(t)
	var err error
	if spec.Model, err = r.Fleet.Model(fleettest.Soon(t), second, time.Minute); err != nil {
		t.Fatal(err)
	}
	gate := p.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 1)
	j := p.start(fleettest.Soon(t), "job", spec)
	entered(t, gate)
	for _, s := range r.Services {
		s.Edit(func(i *stage.Info) {
			i.Models = slices.DeleteFunc(i.Models, func(c stage.Component) bool { return c.Model == first })
			i.Resident = slices.DeleteFunc(i.Resident, func(m stage.ResidentModel) bool { return m.Model == first })
			for n := range i.Models {
				i.Models[n].Stamp = i.Models[n].Model
			}
		})
	}
	for _, s := range r.Services { // twice: a look that had begun before may end last
		if err := s.Looks(fleettest.Soon(t), 2); err != nil {
			t.Fatal(err)
		}
	}
	gate.Release()
	<-j.done
	if j.err != nil || len(j.images()) != 1 {
		t.Errorf("%d images, %v", len(j.images()), j.err)
	}
}

// TestEqualParts: two models with equal encoders and decoders take one of each, whichever is asked for.
func TestEqualParts(t *testing.T) {
	r, shared, _ := equalParts(t)
	p := over(r)
	for _, name := range []string{stagetest.Model, stagetest.OtherModel, stagetest.Model} {
		spec := p.spec(t)
		var err error
		if spec.Model, err = r.Fleet.Model(fleettest.Soon(t), name, time.Minute); err != nil {
			t.Fatal(err)
		}
		p.good(t, spec)
	}
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
