package pipeline_test

import (
	"slices"
	"strings"
	"testing"

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
			for n := range i.Components {
				if c := &i.Components[n]; c.Model == first || c.Model == second {
					if c.Stamp, c.Digest = c.Model, "equal "+strings.TrimPrefix(c.Name, c.Model); s.Kind == stage.KindDenoiser {
						c.Digest = c.Name
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
	spec := p.of(t, second)
	gate := p.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 1)
	j := p.start(fleettest.Soon(t), "job", spec)
	entered(t, gate)
	for _, s := range r.Services {
		s.Edit(func(i *stage.Info) {
			i.Models = slices.DeleteFunc(i.Models, func(m stage.Model) bool { return m.Name == first })
			i.Components = slices.DeleteFunc(i.Components, func(c stage.Component) bool { return c.Model == first })
			i.Resident = slices.DeleteFunc(i.Resident, func(c stage.ResidentComponent) bool { return stage.ModelOf(c.Name) == first })
			for n := range i.Components {
				i.Components[n].Stamp = i.Components[n].Model
			}
		})
	}
	for _, s := range r.Services { // twice: a look that had begun before may end last
		s.Looks(t, 2)
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
		p.good(t, p.of(t, name))
	}
	loads := map[stage.Kind][]string{}
	r.Events.Await(t, "all loads", func(e residency.Event) bool {
		if e.Action == residency.Loaded {
			loads[e.Kind] = append(loads[e.Kind], e.Model())
		}
		return len(loads[stage.KindEncoder]) > 0 && len(loads[stage.KindDenoiser]) > 1 && len(loads[stage.KindDecoder]) > 0
	})
	for _, e := range r.Service(stage.KindEncoder).Works("encode") {
		if stage.ModelOf(e.Components[0]) != shared {
			t.Errorf("%s was encoded by another", e.Components[0])
		}
	}
	for i, d := range r.Service(stage.KindDenoiser).Works("denoise") {
		if want := []string{stagetest.Model, stagetest.OtherModel, stagetest.Model}[i]; stage.ModelOf(d.Components[0]) != want {
			t.Errorf("denoised by %s, want %s", d.Components[0], want)
		}
	}
	for _, kind := range []stage.Kind{stage.KindEncoder, stage.KindDecoder} {
		var held []string
		for _, c := range r.Keeper.Snapshot().Components {
			if c.Kind == kind {
				held = append(held, stage.ModelOf(c.Component))
			}
		}
		if !slices.Equal(held, []string{shared}) || !slices.Equal(loads[kind], held) {
			t.Errorf("the %v holds %v and loaded %v, want %s", kind, held, loads[kind], shared)
		}
	}
}
