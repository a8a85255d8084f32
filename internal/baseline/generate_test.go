package baseline

import (
	"errors"
	"math"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// TestArrivals: the load is what was asked for, and bursts are bursts.
func TestArrivals(t *testing.T) {
	for _, a := range []Arrivals{Poisson, Bursty} {
		trace, err := Generate{Mix: []Share{{"sd15", 1}}, Jobs: 4000, Arrivals: a, Load: 0.5, Seed: 1}.Trace()
		if err != nil {
			t.Fatal(err)
		}
		busy, together := 0.0, 0
		for i, j := range trace.Jobs {
			busy += float64(j.Images) * trace.Models[0].Denoiser.Seconds * float64(j.WidthPx*j.HeightPx) / (512 * 512)
			if i > 0 && j.AtSeconds == trace.Jobs[i-1].AtSeconds {
				together++
			}
		}
		load := busy / trace.Jobs[len(trace.Jobs)-1].AtSeconds
		// 4000 jobs come in 500 bursts: the mean of so many gaps is off by 4.5 % (one deviation).
		if math.Abs(load-0.5) > 0.1 {
			t.Errorf("%s: the load is %.3f", a, load)
		}
		if want := map[Arrivals]int{Poisson: 0, Bursty: 3500}[a]; math.Abs(float64(together-want)) > 200 {
			t.Errorf("%s: %d jobs came with another, expected %d", a, together, want)
		}
	}
}

func TestGenerateRefuses(t *testing.T) {
	good := Generate{Mix: []Share{{"sd15", 1}}, Jobs: 1, Arrivals: Poisson, Load: 0.5}
	for field, change := range map[string]func(*Generate){
		"jobs":       func(g *Generate) { g.Jobs = 0 },
		"load":       func(g *Generate) { g.Load = -1 },
		"arrivals":   func(g *Generate) { g.Arrivals = "often" },
		"models-mix": func(g *Generate) { g.Mix = nil },
		"model":      func(g *Generate) { g.Mix = []Share{{"sd16", 1}} },
	} {
		g := good
		change(&g)
		_, err := g.Trace()
		var e *stage.Error
		if !errors.As(err, &e) || e.Metadata["field"] != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	for _, mix := range []string{"", "sd15=", "sd15=0", "sd15=-1", "sd15=NaN", "sd15,sd15", "sd16", "sd15,,sdxl"} {
		if shares, err := ParseMix(mix); stage.ReasonOf(err) == "" {
			t.Errorf("%q is %v, %v", mix, shares, err)
		}
	}
}
