package scale

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

func TestExpect(t *testing.T) {
	work := func(model, turn, shape string, evaluations int) residency.Workload {
		return residency.Workload{Model: model, Turn: turn, Shape: shape, Evaluations: evaluations}
	}
	var p Paces
	learn := func(w residency.Workload, seconds float64) {
		p.Learn(done(residency.Need{Kind: stage.KindDenoiser, Work: w}, seconds))
	}
	learn(work("m", "denoise", "small", 10), 20)
	learn(work("m", "denoise", "large", 10), 80)
	cut := done(residency.Need{Kind: stage.KindDenoiser, Work: work("m", "denoise", "small", 0)}, 1000)
	cut.Unfinished = true
	p.Learn(cut)
	lost := done(residency.Need{Kind: stage.KindDenoiser, Work: work("m", "denoise", "small", 10)}, 1000)
	lost.Class = residency.WorkWithdrawn
	p.Learn(lost)
	mixed := 2 + weight*(8-2)
	for name, c := range map[string]struct {
		kind stage.Kind
		w    residency.Workload
		want float64
	}{
		"its shape":         {stage.KindDenoiser, work("m", "denoise", "small", 5), 10},
		"its other shape":   {stage.KindDenoiser, work("m", "denoise", "large", 5), 40},
		"another shape":     {stage.KindDenoiser, work("m", "denoise", "wide", 5), 5 * mixed},
		"another turn":      {stage.KindDenoiser, work("m", "refine", "wide", 5), 5 * mixed},
		"another model":     {stage.KindDenoiser, work("n", "denoise", "small", 5), 5 * NominalSeconds},
		"another kind":      {stage.KindDecoder, work("m", "denoise", "small", 1), NominalSeconds},
		"not counted":       {stage.KindDenoiser, work("m", "denoise", "small", 0), 2},
		"beyond all bounds": {stage.KindDenoiser, work("m", "denoise", "small", math.MaxInt), maxSeconds},
	} {
		if got := p.expect(c.kind, c.w, nil); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v s, want %v", name, got, c.want)
		}
	}
	for range 40 { // it follows what it measures
		learn(work("m", "denoise", "small", 10), 50)
	}
	if got := p.expect(stage.KindDenoiser, work("m", "denoise", "small", 1), nil); math.Abs(got-5) > 0.01 {
		t.Errorf("after 40 turns at 5 s an evaluation it expects %v s", got)
	}
}

// TestPacesAreBounded: however many shapes there are, the latest are remembered, and nothing that is older than a day.
func TestPacesAreBounded(t *testing.T) {
	var p Paces
	n := need(stage.KindDenoiser, "m", 1)
	now := epoch
	for i := range 5 * maxPaces {
		n.Work.Shape = fmt.Sprint(i)
		e := done(n, 7)
		now = now.Add(time.Second)
		e.Time = now
		p.Learn(e)
		if len(p.means) > maxPaces {
			t.Fatalf("%d means after %d shapes", len(p.means), i)
		}
		if c := (class{n.Kind, "m", n.Work.Turn, n.Work.Shape}); p.means[c] == nil {
			t.Fatalf("the latest shape is not remembered")
		}
	}
	e := done(need(stage.KindDenoiser, "n", 1), 7)
	e.Time = now.Add(forgetting + time.Second)
	p.Learn(e)
	if got := p.expect(n.Kind, n.Work, nil); got != NominalSeconds {
		t.Errorf("after a day it expects %v s, as was measured", got)
	}
	if got := p.expect(n.Kind, need(stage.KindDenoiser, "n", 1).Work, nil); got != 7 {
		t.Errorf("it expects %v s of what has just taken 7", got)
	}
}
