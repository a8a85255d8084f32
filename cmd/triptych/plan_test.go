package main

import (
	"math"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// sizedModel is a model of so many bytes of weights in each stage, all with equal scratch.
func sizedModel(name string, scratch int64, weights ...int64) *modelPlan {
	m := &modelPlan{Model: name}
	for i, kind := range stage.Kinds() {
		f := stage.Footprint{WeightsBytes: weights[i], ScratchBytes: scratch}
		m.Stages = append(m.Stages, planStage{Stage: kind.String(), Mode: modeWhole, kind: kind, footprint: f, LoadedBytes: weights[i], LoadBytesPerSecond: 1000})
	}
	return m
}

func TestCycleModes(t *testing.T) {
	limit := int64(7)
	streamed := sizedModel("m", 10, 100, 500, 50)
	streamed.Stages[1].ResidentBytes, streamed.Stages[1].StreamedBytes = &limit, 2000
	refused := sizedModel("m", 10, 100, 500, 50)
	refused.Stages[2].Mode = modeRefused
	for name, c := range map[string]struct {
		models   []*modelPlan
		budget   int64
		mode     string
		resident []string
		seconds  float64
	}{
		"no budget":    {[]*modelPlan{sizedModel("m", 10, 100, 500, 50)}, 0, modeAll, []string{"encoder", "denoiser", "decoder"}, 0},
		"all fits":     {[]*modelPlan{sizedModel("m", 10, 100, 500, 50)}, 660, modeAll, []string{"encoder", "denoiser", "decoder"}, 0},
		"nearly":       {[]*modelPlan{sizedModel("m", 10, 100, 500, 50)}, 659, modePartly, []string{"denoiser"}, 0.15},
		"one at once":  {[]*modelPlan{sizedModel("m", 10, 100, 500, 450)}, 510, modeOne, nil, 1.05},
		"streamed":     {[]*modelPlan{streamed}, 510, "streamed denoiser (7 B resident)", nil, 0.65},
		"does not fit": {[]*modelPlan{refused}, 510, modeRefused, nil, 0},
		"two, all":     {[]*modelPlan{sizedModel("a", 10, 1, 2, 3), sizedModel("b", 10, 1, 2, 3)}, 22, modeAll, []string{"a encoder", "a denoiser", "a decoder", "b encoder", "b denoiser", "b decoder"}, 0},
		"two, one":     {[]*modelPlan{sizedModel("a", 1, 100, 100, 100), sizedModel("b", 1, 100, 100, 100)}, 101, modeOne, nil, 0.3},
	} {
		p, err := newCycle(c.models, planMemory{budget: c.budget}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p.price()
		if p.Mode != c.mode {
			t.Errorf("%s: mode %q, want %q", name, p.Mode, c.mode)
		}
		if c.mode == modeRefused {
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
		p, err := newCycle([]*modelPlan{sizedModel("m", 10, 100, 500, 450)}, planMemory{budget: 510, warm: warm}, nil)
		if err != nil || len(p.Reloaded) != reloaded || len(p.Warm) != 3-reloaded || p.Mode != modeOne {
			t.Errorf("with %d bytes warm: %+v, %v", warm, p, err)
		}
	}
	// Each stage at its own rate; without one of a stage that is loaded again, nobody knows.
	uneven := sizedModel("m", 10, 100, 500, 450)
	uneven.Stages[1].LoadBytesPerSecond = 100
	p, err := newCycle([]*modelPlan{uneven}, planMemory{budget: 510}, nil)
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
	if p, err = newCycle([]*modelPlan{streamed}, planMemory{budget: 510}, nil); err != nil {
		t.Fatal(err)
	}
	if p.price(); p.StreamSecondStep == nil || *p.StreamSecondStep != 2 {
		t.Errorf("a step reads for %v s, want 2", p.StreamSecondStep)
	}
}

// TestTogether: a model that has the encoder and decoder of another adds its denoiser alone to what keeps all in memory, which is
// then enough; less is not. The order of the models does not matter.
func TestTogether(t *testing.T) {
	parts := sharing{{Kind: stage.KindEncoder, Model: "tuned"}: "base", {Kind: stage.KindDecoder, Model: "tuned"}: "base"}
	models := func(names ...string) (out []modelPlan) {
		for _, name := range names {
			m := sizedModel(name, 10, 100, 500, 50)
			for i := range m.Stages {
				s := &m.Stages[i]
				s.MostScratchBytes, s.footprint.WholeBytes = s.footprint.ScratchBytes, s.footprint.WeightsBytes
				m.AllBytes += s.footprint.WholeBytes + s.MostScratchBytes
			}
			m.LeastBudgetBytes = 510
			out = append(out, *m)
		}
		return out
	}
	for _, order := range [][]string{{"base", "tuned"}, {"tuned", "base"}} {
		for _, c := range []struct {
			parts   sharing
			budget  int64
			mode    string
			all     int64
			stays   int
			reloads float64
		}{
			{nil, 1330, modeAll, 1330, 6, 0},
			{parts, 1180, modeAll, 1180, 4, 0},
			{parts, 1150, modePartly, 1180, 2, 0.15}, // the denoisers
			{parts, 510, modeOne, 1180, 0, 0.65},
		} {
			p, err := together(models(order...), planMemory{budget: c.budget}, c.parts)
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

func TestPlanTexts(t *testing.T) {
	for n, want := range map[int64]string{0: "0MiB", 1: "1", 1 << 20: "1MiB", 3 << 10: "3KiB", 10_000_000: "10000000", 3 << 30: "3072MiB"} {
		got := flagSize(n)
		var back byteSize
		if err := back.Set(got); got != want || err != nil || int64(back) != n {
			t.Errorf("%d bytes as %q, want %q, read as %d, %v", n, got, want, back, err)
		}
	}
	for s, want := range map[float64]string{0: "0 s", 0.0001: "less than 0.001 s", 0.01234: "0.012 s", 0.5: "0.500 s", 2.345: "2.35 s", 44.04: "44.0 s", 1234.5: "1234 s"} {
		if got := secondsText(s); got != want {
			t.Errorf("%v as %q, want %q", s, got, want)
		}
	}
	if got := (planConvs{"direct": 2, "winograd4": 41, "winograd2": 2}).String(); got != "winograd4 41, direct 2, winograd2 2" {
		t.Error(got)
	}
	var rate byteRate
	for text, want := range map[string]int64{"500MB/s": 500_000_000, "1GiB": 1 << 30, "0": -1, "fast": -1, "-1MB/s": -1} {
		if err := rate.Set(text); (err != nil) != (want < 0) || err == nil && int64(rate) != want {
			t.Errorf("%q: %d, %v", text, rate, err)
		}
	}
}
