package simulate

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// traces are small ones of every kind.
func traces(t *testing.T) map[string]Trace {
	t.Helper()
	out := map[string]Trace{}
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

// TestEveryPolicyKeepsTheLaw: no budget is exceeded, no policy loads less than the oracle says, exact or not,
// and every job ends.
func TestEveryPolicyKeepsTheLaw(t *testing.T) {
	for name, trace := range traces(t) {
		for _, percent := range []int64{0, 45, 70, 100, 130} {
			for _, width := range []int{1, oracleWidth} {
				budget := trace.WeightsBytes() * percent / 100
				results, err := Compare(trace, Options{BudgetBytes: budget, LoadBytesPerSecond: 5e8, EvictSeconds: 0.01, OracleWidth: width})
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
		o := Options{BudgetBytes: trace.WeightsBytes() * 7 / 10, LoadBytesPerSecond: 5e8, EvictSeconds: 0.01}
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
	trace, err := ReadTrace(strings.NewReader(text))
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
				r, err := Run(trace, p, Options{BudgetBytes: c.budget, WarmBytes: c.warm, LoadBytesPerSecond: 10})
				want := Result{
					Policy: c.policy, Loads: c.loads, FromWarm: c.fromWarm, ReloadSeconds: c.reload, OracleSeconds: c.least, OracleExact: c.warm == 0, WaitingSeconds: c.waited,
					P50Seconds: c.p50, P95Seconds: c.p99, P99Seconds: c.p99, Done: c.done, Refused: c.refused, PeakBytes: r.PeakBytes, LoadsOf: r.LoadsOf, FromWarmOf: r.FromWarmOf,
				}
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

// TestSharedParts: a model that has the encoder and decoder of another is loaded as one more denoiser, in whatever order the
// two are asked for.
func TestSharedParts(t *testing.T) {
	part := func(bytes int64) Part { return Part{WeightsBytes: bytes, Seconds: 1} }
	trace := Trace{}
	for _, name := range []string{"base", "tuned"} {
		trace.Models = append(trace.Models, Model{Name: name, SidePx: 8, Encoder: part(10), Denoiser: part(40), Decoder: part(10)})
	}
	for i := range 6 {
		trace.Jobs = append(trace.Jobs, Job{AtSeconds: float64(50 * i), Model: []string{"tuned", "base"}[i%2], Images: 1, WidthPx: 8, HeightPx: 8})
	}
	parts := map[Component]string{{stage.KindEncoder, "tuned"}: "base", {stage.KindDecoder, "tuned"}: "base"}
	for _, c := range []struct {
		policy string
		parts  map[Component]string
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
			r, err := Run(trace, p, Options{BudgetBytes: c.budget, LoadBytesPerSecond: 10, Parts: c.parts})
			if err != nil || r.Done != 6 || c.loads > 0 && r.Loads != c.loads || c.loads == 0 && r.Loads <= 4 || r.PeakBytes > c.budget || r.OracleSeconds > r.ReloadSeconds {
				t.Errorf("%s, budget %d, parts %v: %+v, %v", c.policy, c.budget, c.parts, r, err)
			}
			if n := r.LoadsOf[Component{stage.KindEncoder, "tuned"}]; (n > 0) != (c.parts == nil) {
				t.Errorf("%s, parts %v: %d loads of an encoder of tuned", c.policy, c.parts, n)
			}
			if c.parts != nil && c.budget == 100 && r.OracleSeconds != 10 {
				t.Errorf("%s: the least is %v s", c.policy, r.OracleSeconds)
			}
		}
	}
}
