package planner

import (
	"math"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// sizedModel is a model of so many bytes of weights in each stage, all with equal scratch.
func sizedModel(name string, scratch int64, weights ...int64) Model {
	m := Model{Model: name}
	for i, kind := range stage.Kinds() {
		f := stage.Footprint{Weights: []stage.Weights{{Component: name + "/" + kind.String(), Bytes: weights[i], WholeBytes: weights[i]}}, ScratchBytes: scratch}
		m.Stages = append(m.Stages, Stage{
			Stage: kind.String(), Mode: ModeWhole, kind: kind, footprint: f, MostScratchBytes: scratch, LoadedBytes: weights[i], LoadBytesPerSecond: 1000,
		})
	}
	return m
}

func TestCycleModes(t *testing.T) {
	limit := int64(7)
	streamed := sizedModel("m", 10, 100, 500, 50)
	streamed.Stages[1].ResidentBytes, streamed.Stages[1].StreamedBytes = &limit, 2000
	refused := sizedModel("m", 10, 100, 500, 50)
	refused.Stages[2].Mode = ModeRefused
	for name, c := range map[string]struct {
		models   []Model
		budget   int64
		mode     string
		resident []string
		seconds  float64
	}{
		"no budget":    {[]Model{sizedModel("m", 10, 100, 500, 50)}, 0, ModeAll, []string{"encoder", "denoiser", "decoder"}, 0},
		"all fits":     {[]Model{sizedModel("m", 10, 100, 500, 50)}, 660, ModeAll, []string{"encoder", "denoiser", "decoder"}, 0},
		"nearly":       {[]Model{sizedModel("m", 10, 100, 500, 50)}, 659, ModePartly, []string{"denoiser"}, 0.15},
		"one at once":  {[]Model{sizedModel("m", 10, 100, 500, 450)}, 510, ModeOne, nil, 1.05},
		"streamed":     {[]Model{streamed}, 510, "streamed denoiser (7 B resident)", nil, 0.65},
		"does not fit": {[]Model{refused}, 510, ModeRefused, nil, 0},
		"two, all":     {[]Model{sizedModel("a", 10, 1, 2, 3), sizedModel("b", 10, 1, 2, 3)}, 22, ModeAll, []string{"a encoder", "a denoiser", "a decoder", "b encoder", "b denoiser", "b decoder"}, 0},
		"two, one":     {[]Model{sizedModel("a", 1, 100, 100, 100), sizedModel("b", 1, 100, 100, 100)}, 101, ModeOne, nil, 0.3},
	} {
		p, err := newCycle(c.models, room{budget: c.budget}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p.price()
		if p.Mode != c.mode {
			t.Errorf("%s: mode %q, want %q", name, p.Mode, c.mode)
		}
		if c.mode == ModeRefused {
			if p.ReloadSeconds != nil {
				t.Errorf("%s: %+v", name, p)
			}
			continue
		}
		if c.resident != nil && !slices.Equal(p.Resident, c.resident) {
			t.Errorf("%s: %v stays, want %v", name, p.Resident, c.resident)
		}
		if p.ReloadSeconds == nil || *p.ReloadSeconds < c.seconds-1e-9 || *p.ReloadSeconds > c.seconds+1e-9 {
			t.Errorf("%s: %+v, want %v s", name, p, c.seconds)
		}
		if c.budget > 0 && p.PeakBytes > c.budget {
			t.Errorf("%s: a peak of %d bytes, budget %d", name, p.PeakBytes, c.budget)
		}
	}
	// With room for all nothing is loaded again; what is evicted needs room beside what comes, so that a little less is too little.
	for warm, reloaded := range map[int64]int{1050: 0, 1049: 1, 510: 2, 5: 3} {
		p, err := newCycle([]Model{sizedModel("m", 10, 100, 500, 450)}, room{budget: 510, warm: warm}, nil)
		if err != nil || len(p.Reloaded) != reloaded || len(p.Warm) != 3-reloaded || p.Mode != ModeOne {
			t.Errorf("with %d bytes warm: %+v, %v", warm, p, err)
		}
	}
	// Each stage at its own rate; without one of a stage that is loaded again, nobody knows.
	uneven := sizedModel("m", 10, 100, 500, 450)
	uneven.Stages[1].LoadBytesPerSecond = 100
	p, err := newCycle([]Model{uneven}, room{budget: 510}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.price(); p.ReloadSeconds == nil || math.Abs(*p.ReloadSeconds-5.55) > 1e-9 {
		t.Errorf("with a slow denoiser: %+v", p)
	}
	p.ReloadSeconds, uneven.Stages[2].LoadBytesPerSecond = nil, 0
	if p.price(); p.ReloadSeconds != nil || p.ReloadedBytes != 1050 {
		t.Errorf("without a bandwidth: %+v", p)
	}
	if p, err = newCycle([]Model{streamed}, room{budget: 510}, nil); err != nil {
		t.Fatal(err)
	}
	if p.price(); p.StreamSecondStep == nil || *p.StreamSecondStep != 2 {
		t.Errorf("a step reads for %v s, want 2", p.StreamSecondStep)
	}
}

// TestCycleOfComponents: of a stage that holds several components, what is loaded again is a component; turns of one stage are told
// apart, and its scratch counts once.
func TestCycleOfComponents(t *testing.T) {
	m := sizedModel("m", 10, 100, 500, 50)
	encoder := &m.Stages[0]
	encoder.footprint.Weights = append(encoder.footprint.Weights, stage.Weights{Component: "m/text_encoder_2", Bytes: 60, WholeBytes: 60})
	encoder.Networks, encoder.LoadedBytes = []Network{{StoredBytes: 100}, {StoredBytes: 60}}, 160
	look := m.Stages[2]
	look.footprint.Weights = []stage.Weights{{Component: "m/vae.encoder", Bytes: 40, WholeBytes: 40}}
	look.Turn, look.LoadedBytes, m.Stages[2].Turn = "encode_image", 40, "decode"
	m.Stages = slices.Insert(m.Stages, 1, look)
	if all := allBytes([]Model{m}, nil); all != 160+40+500+50+3*10 {
		t.Errorf("all are %d bytes", all)
	}
	for _, c := range []struct {
		budget   int64
		mode     string
		resident []string
		reloaded int64
	}{
		{760, ModeAll, []string{"encoder", "decoder encode_image", "denoiser", "decoder decode"}, 0},
		{759, ModePartly, []string{"denoiser", "decoder decode"}, 60 + 40}, // of the encoder the smaller component
		{660, ModePartly, []string{"decoder encode_image", "decoder decode"}, 100 + 500},
		{510, ModeOne, nil, 750},
	} {
		p, err := newCycle([]Model{m}, room{budget: c.budget}, nil)
		if err != nil || p.Mode != c.mode || !slices.Equal(p.Resident, c.resident) || p.ReloadedBytes != c.reloaded || p.PeakBytes > c.budget {
			t.Errorf("in %d: %+v, %v", c.budget, p, err)
		}
	}
}

// TestTogether: a model that has the encoder and decoder of another adds its denoiser alone to what keeps all in memory, which is
// then enough; less is not. The order of the models does not matter.
func TestTogether(t *testing.T) {
	parts := map[string]string{"tuned/encoder": "base/encoder", "tuned/decoder": "base/decoder"}
	models := func(names ...string) (out []Model) {
		for _, name := range names {
			m := sizedModel(name, 10, 100, 500, 50)
			m.LeastBudgetBytes = 510
			out = append(out, m)
		}
		return out
	}
	for _, order := range [][]string{{"base", "tuned"}, {"tuned", "base"}} {
		for _, c := range []struct {
			parts   map[string]string
			budget  int64
			mode    string
			all     int64
			stays   int
			reloads float64
		}{
			{nil, 1330, ModeAll, 1330, 6, 0},
			{parts, 1180, ModeAll, 1180, 4, 0},
			{parts, 1150, ModePartly, 1180, 2, 0.15}, // the denoisers
			{parts, 510, ModeOne, 1180, 0, 0.65},
		} {
			p, err := together(models(order...), room{budget: c.budget}, c.parts)
			if err != nil {
				t.Fatal(err)
			}
			p.price()
			if p.Mode != c.mode || p.AllBytes != c.all || p.LeastBudgetBytes != 510 || len(p.Resident) != c.stays || p.ReloadSeconds == nil || math.Abs(*p.ReloadSeconds-c.reloads) > 1e-9 {
				t.Errorf("%v, parts %v in %d: %+v, seconds %v", order, c.parts, c.budget, p, *p.ReloadSeconds)
			}
			if slices.Contains(p.Resident, "tuned encoder") != (c.parts == nil) {
				t.Errorf("%v, parts %v: %v stay", order, c.parts, p.Resident)
			}
		}
	}
}
