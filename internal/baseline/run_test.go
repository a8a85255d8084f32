package baseline

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
)

// traces are small ones of every kind.
func traces(t *testing.T) map[string]simulate.Trace {
	t.Helper()
	out := map[string]simulate.Trace{}
	for _, mix := range []string{"sd15", "sd15:a,sd15:b=2,sdxl", "sd15,sdxl,pyramid,starter"} {
		for _, arrivals := range []Arrivals{Poisson, Bursty} {
			shares, err := ParseMix(mix)
			if err != nil {
				t.Fatal(err)
			}
			trace, err := Generate{Mix: shares, Jobs: 25, Arrivals: arrivals, Load: 0.7, Seed: 3}.Trace()
			if err != nil {
				t.Fatal(err)
			}
			out[mix+" "+string(arrivals)] = trace
		}
	}
	return out
}

// stored is a trace of package simulate's tests.
func stored(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "orchestrator", "residency", "simulate", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEveryPolicyKeepsTheLaw: no budget is exceeded, no policy loads less than the oracle says, exact or not,
// and every job ends.
func TestEveryPolicyKeepsTheLaw(t *testing.T) {
	for name, trace := range traces(t) {
		for _, percent := range []int64{0, 45, 70, 100, 130} {
			for _, width := range []int{1, oracleWidth} {
				budget := trace.WeightsBytes() * percent / 100
				results, err := Compare(trace, Options{Options: simulate.Options{BudgetBytes: budget, LoadBytesPerSecond: 5e8, EvictSeconds: 0.01}, OracleWidth: width})
				if err != nil {
					t.Fatalf("%s, %d %%: %v", name, percent, err)
				}
				for _, r := range results {
					if r.Violations != 0 || budget > 0 && r.PeakBytes > budget {
						t.Errorf("%s, %d %%, %s: %d violations, peak %d of %d", name, percent, r.Policy, r.Violations, r.PeakBytes, budget)
					}
					if r.ReloadSeconds < r.OracleSeconds-1e-6 {
						t.Errorf("%s, %d %%, %s: loads of %v s, and the least is %v s", name, percent, r.Policy, r.ReloadSeconds, r.OracleSeconds)
					}
					if r.Done+r.Refused != len(trace.Jobs) || r.Done > 0 && r.ReloadSeconds == 0 {
						t.Errorf("%s, %d %%: %+v", name, percent, r)
					}
					if (percent == 0 || percent == 130) && (r.Refused != 0 && !strings.HasPrefix(r.Policy, "keep") || r.Loads != 3*len(trace.Models) && r.Refused == 0) {
						t.Errorf("%s: where all fits, %+v", name, r)
					}
				}
			}
		}
	}
}

func TestEqualArgumentsGiveEqualResults(t *testing.T) {
	again := traces(t)
	for name, trace := range traces(t) {
		if !reflect.DeepEqual(trace, again[name]) {
			t.Fatalf("%s is generated differently the second time", name)
		}
		o := Options{Options: simulate.Options{BudgetBytes: trace.WeightsBytes() * 7 / 10, LoadBytesPerSecond: 5e8, EvictSeconds: 0.01}}
		a, err := Compare(trace, o)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := Compare(trace, o); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %+v, and the second time %+v", name, a, b)
		}
	}
}

// TestByHand: one job, one image, nothing to choose. Loads of 1, 4 and 1 s; all stages compute 1 s. The
// denoiser loads while the encoder computes.
func TestByHand(t *testing.T) {
	text := `{"model": {"name": "m", "side_px": 8, "encoder": {"weights_bytes": 10, "seconds": 1}, "denoiser": {"weights_bytes": 40, "seconds": 1}, "decoder": {"weights_bytes": 10, "seconds": 1}}}
{"job": {"at_seconds": 5, "model": "m"}}
{"job": {"at_seconds": 25, "model": "m"}}`
	trace, err := simulate.ReadTrace(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		policy                string
		budget, warm          int64
		loads, fromWarm       int
		reload, waited, p50   float64
		p99, least            float64
		done, refused, placed int
	}{
		// Encoder 1+1, denoiser 3 more and 1, decoder loaded meanwhile and 1; then nothing to load: 3.
		{policy: Ours, loads: 3, reload: 6, waited: 4, p50: 3, p99: 7, least: 6, done: 2},
		// Without prefetches 1+1+4+1+1+1.
		{policy: OursBare, loads: 3, reload: 6, waited: 6, p50: 3, p99: 9, least: 6, done: 2},
		{policy: "keep all or fail", loads: 3, budget: 60, reload: 6, waited: 6, p50: 3, p99: 9, least: 6, done: 2},
		{policy: "keep all or fail", budget: 59, refused: 2},
		{policy: Ours, budget: 39, refused: 2},
		// Two of three fit: the least recently used loads all each time, 6 s and then 6 again. The best keeps the
		// denoiser; the first decoder pushes the encoder out, and the other way round: 6 + 2.
		{policy: LRU, budget: 50, loads: 6, reload: 12, waited: 12, p50: 9, p99: 9, least: 8, done: 2},
		// Whatever was evicted is there again at once; with less room, all but the denoiser, which is not missed for longer.
		{policy: LRU, budget: 50, warm: 60, loads: 3, fromWarm: 3, reload: 6, waited: 6, p50: 3, p99: 9, done: 2},
		{policy: LRU, budget: 50, warm: 39, loads: 4, fromWarm: 2, reload: 10, waited: 10, p50: 7, p99: 9, done: 2},
	} {
		t.Run(fmt.Sprint(c.policy, c.budget, c.warm), func(t *testing.T) {
			for _, p := range Policies() {
				if p.Name != c.policy {
					continue
				}
				r, err := Run(trace, p, Options{Options: simulate.Options{BudgetBytes: c.budget, WarmBytes: c.warm, LoadBytesPerSecond: 10}})
				want := Result{OracleSeconds: c.least, OracleExact: c.warm == 0, Result: simulate.Result{
					Policy: c.policy, Loads: c.loads, FromWarm: c.fromWarm, ReloadSeconds: c.reload, WaitingSeconds: c.waited, P50Seconds: c.p50, P95Seconds: c.p99,
					P99Seconds: c.p99, Done: c.done, Refused: c.refused, PeakBytes: r.PeakBytes, LoadsOf: r.LoadsOf, FromWarmOf: r.FromWarmOf,
				}}
				if err != nil || !reflect.DeepEqual(r, want) {
					t.Errorf("got %+v, %v\nexpected %+v", r, err, want)
				}
				loads := 0
				for _, n := range r.LoadsOf {
					loads += n
				}
				if loads != c.loads {
					t.Errorf("%d loads of components, want %d", loads, c.loads)
				}
			}
		})
	}
}

// TestSharedParts: a model that has the encoder and decoder of another is loaded as one more denoiser, in whatever order the
// two are asked for.
func TestSharedParts(t *testing.T) {
	part := func(bytes int64) simulate.Part { return simulate.Part{WeightsBytes: bytes, Seconds: 1} }
	trace := simulate.Trace{}
	for _, name := range []string{"base", "tuned"} {
		trace.Models = append(trace.Models, simulate.Model{Name: name, SidePx: 8, Encoder: part(10), Denoiser: part(40), Decoder: part(10)})
	}
	for i := range 6 {
		trace.Jobs = append(trace.Jobs, simulate.Job{AtSeconds: float64(50 * i), Model: []string{"tuned", "base"}[i%2], Images: 1, WidthPx: 8, HeightPx: 8})
	}
	parts := map[string]string{"tuned/encoder": "base/encoder", "tuned/decoder": "base/decoder"}
	for _, c := range []struct {
		policy string
		parts  map[string]string
		budget int64
		loads  int // 0 is more than once each
	}{
		{Ours, nil, 120, 6},
		{Ours, parts, 100, 4},
		{"keep all or fail", parts, 100, 4},
		{LRU, parts, 60, 0}, // no denoiser fits beside the other
	} {
		for _, p := range Policies() {
			if p.Name != c.policy {
				continue
			}
			r, err := Run(trace, p, Options{Options: simulate.Options{BudgetBytes: c.budget, LoadBytesPerSecond: 10, Parts: c.parts}})
			if err != nil || r.Done != 6 || c.loads > 0 && r.Loads != c.loads || c.loads == 0 && r.Loads <= 4 || r.PeakBytes > c.budget || r.OracleSeconds > r.ReloadSeconds {
				t.Errorf("%s, budget %d, parts %v: %+v, %v", c.policy, c.budget, c.parts, r, err)
			}
			if n := r.LoadsOf["tuned/encoder"]; (n > 0) != (c.parts == nil) {
				t.Errorf("%s, parts %v: %d loads of an encoder of tuned", c.policy, c.parts, n)
			}
			if c.parts != nil && c.budget == 100 && r.OracleSeconds != 10 {
				t.Errorf("%s: the least is %v s", c.policy, r.OracleSeconds)
			}
		}
	}
}

// TestSetsOfTurns: what a set has in common with another one is loaded once, the others are loaded for each; and the oracle
// knows of sets.
func TestSetsOfTurns(t *testing.T) {
	trace, err := simulate.ReadTrace(strings.NewReader(stored(t, "sets.jsonl")))
	if err != nil {
		t.Fatal(err)
	}
	for budget, loads := range map[int64]int{65: 5, 70: 5, 50: 0} {
		results, err := Compare(trace, Options{Options: simulate.Options{BudgetBytes: budget, LoadBytesPerSecond: 10}})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if strings.HasPrefix(r.Policy, "keep") {
				continue
			}
			if r.Done != 2 || r.Violations > 0 || loads > 0 && r.Policy == Ours && r.Loads != loads || r.ReloadSeconds < r.OracleSeconds {
				t.Errorf("%d bytes, %s: %+v", budget, r.Policy, r)
			}
			if budget == 70 && (r.OracleSeconds != 6.5 || !r.OracleExact) { // all once
				t.Errorf("%s: the least is %v s", r.Policy, r.OracleSeconds)
			}
			if r.LoadsOf["x/lora"] != 1 || r.LoadsOf["y/lora"] != 1 || budget > 50 && r.LoadsOf["a/unet"] != 1 {
				t.Errorf("%d bytes, %s: loads of %v", budget, r.Policy, r.LoadsOf)
			}
		}
	}
}

// TestTurnsAreWhatTheModelWouldTake: a job that describes its turns ends as one whose model has the same.
func TestTurnsAreWhatTheModelWouldTake(t *testing.T) {
	for name, trace := range traces(t) {
		if !strings.HasPrefix(name, "sd15 ") && !strings.HasPrefix(name, "sd15:a,") {
			continue // two mixes are enough
		}
		same := simulate.Trace{}
		for i, j := range trace.Jobs {
			if err := same.Add(fmt.Sprint("job ", i), simulate.Job{AtSeconds: j.AtSeconds, Turns: trace.Turns(j)}); err != nil {
				t.Fatal(err)
			}
		}
		same, err := same.Complete()
		if err != nil {
			t.Fatal(err)
		}
		if len(same.Models) != 0 || same.WeightsBytes() != trace.WeightsBytes() {
			t.Fatalf("%s: %d models, %d of %d bytes", name, len(same.Models), same.WeightsBytes(), trace.WeightsBytes())
		}
		o := Options{Options: simulate.Options{BudgetBytes: trace.WeightsBytes() * 6 / 10, LoadBytesPerSecond: 5e8, EvictSeconds: 0.01}, OracleWidth: 20}
		want, err := Compare(trace, o)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Compare(same, o); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nexpected %+v", name, got, err, want)
		}
	}
}

// TestPartsOfDifferentSize: where one turn keeps less of a part's weights than another, each loads what it keeps, and what
// the oracle says is a bound.
func TestPartsOfDifferentSize(t *testing.T) {
	turned := stored(t, "turned.jsonl")
	larger := strings.Replace(strings.Replace(turned, "40", "80", 1), `"at_seconds": 5`, `"at_seconds": 500`, 1)
	trace, err := simulate.ReadTrace(strings.NewReader(turned + larger))
	if err != nil {
		t.Fatal(err)
	}
	if trace.WeightsBytes() != 100 {
		t.Errorf("%d bytes of weights", trace.WeightsBytes())
	}
	r, err := Run(trace, simulate.Policy{Name: Ours}, Options{Options: simulate.Options{BudgetBytes: 100, LoadBytesPerSecond: 10}})
	// The larger one is content with the 40 bytes that are there.
	if err != nil || r.Done != 2 || r.ReloadSeconds != 6 || r.OracleSeconds > r.ReloadSeconds || r.OracleExact {
		t.Errorf("%+v, %v", r, err)
	}
}
