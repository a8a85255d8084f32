package kernels

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/stat"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// TestListIsRecorded compares the table in the repository with what the configs give: `go generate ./bench/...`.
func TestListIsRecorded(t *testing.T) {
	got, err := List()
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := Record()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(recorded)
	if err != nil {
		t.Fatal(err)
	}
	var want []Entry
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("shapes.json is not what `go generate ./bench/...` gives: ", diff)
	}
}

// TestListHasWhatMatters names shapes that the goals of the engine are told for.
func TestListHasWhatMatters(t *testing.T) {
	list, err := List()
	if err != nil {
		t.Fatal(err)
	}
	main := map[string]bool{}
	for _, e := range list {
		if e.Main {
			main[e.Kind()+" "+e.Size()] = true
		}
	}
	for _, want := range []string{
		"attention, self 2x 4096x4096x8x40", "attention, cross 2x 4096x77x8x40", "attention, one head 1x 4096x4096x1x512",
		"conv 3x3 s1 2x64x64x320 -> 320", "conv 3x3 s2 2x64x64x320 -> 320", "conv 1x1 2x64x64x640 -> 320", "gemm 2x4096x320 -> 2560",
		"geglu 2x4096x2560", "group_norm+silu 2x64x64x320", "layer_norm 2x4096x320", "upsample + conv 3x3 1x128x128x512 -> 512",
		"attention, self 2x 4096x4096x10x64", "conv 3x3 s1 2x128x128x320 -> 320",
	} {
		if !main[want] {
			t.Errorf("no main shape %q", want)
		}
	}
}

// TestWork checks the counts of operations against what section 1 of Rombach's network is known to take: 402 GMAC for
// one latent without guidance, 1257 for the decoder.
func TestWork(t *testing.T) {
	list, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for network, want := range map[string]float64{"sd15 unet": 2 * 2 * 402e9, "sd15 vae_decoder": 2 * 1257e9} {
		sum := 0.0
		for _, e := range list {
			sum += e.Flops() * float64(e.Uses[network])
		}
		if sum < 0.98*want || sum > 1.02*want {
			t.Errorf("%s: %.0f GFLOP, want %.0f", network, sum/1e9, want/1e9)
		}
	}
}

// TestTapes records every shape by itself: it must give the op it came from.
func TestTapes(t *testing.T) {
	list, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		tape, err := e.tape(storage{"f16", tensor.F16, tensor.Invalid})
		if err != nil {
			t.Fatalf("%s %s: %v", e.Kind(), e.Size(), err)
		}
		got, ok := shapeOf(tape.Manifest(), tape.Ops()[0])
		if diff := cmp.Diff(toJSON(t, e.Shape), toJSON(t, got)); !ok || len(tape.Ops()) != 1 || diff != "" {
			t.Errorf("%s %s: %s", e.Kind(), e.Size(), diff)
		}
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestStoredValuesAreTheSame(t *testing.T) {
	const n = 2 * period
	want := make([]float32, n)
	fill(want)
	for _, s := range stored() {
		data, err := bytesOf(s.dtype, n)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, n)
		if err := tensor.Widen(got, s.dtype, data); err != nil {
			t.Fatal(err)
		}
		tolerance := float32(0)
		if s.dtype == tensor.BF16 {
			tolerance = 0.5 / 128
		}
		for i := range want {
			if d := want[i] - got[i]; d > tolerance || d < -tolerance {
				t.Fatalf("%s: value %d is %v, want %v", s.name, i, got[i], want[i])
			}
		}
	}
}

func TestMeasure(t *testing.T) {
	l := limits.Limits{Threads: 2, FMA: limits.Rate{One: 40, All: 80}, Levels: []limits.Level{{Name: "DRAM", Copy: limits.Rate{One: 10, All: 12}}}}
	o := Options{Threads: 2, Time: time.Millisecond, Longest: time.Second, Run: regexp.MustCompile(`^(gemm 2x77x768 -> 3072|layer_norm 2x77x768|softmax 120x77) `)}
	var names []string
	rows, err := Measure(t.Context(), o, &l, func(r Row) { names = append(names, r.Name) })
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"gemm 2x77x768 -> 3072 t1 f32", "layer_norm 2x77x768 t1", "softmax 120x77 t1",
		"gemm 2x77x768 -> 3072 t2 f32", "gemm 2x77x768 -> 3072 t2 f16", "gemm 2x77x768 -> 3072 t2 bf16", "gemm 2x77x768 -> 3072 t2 int8", "layer_norm 2x77x768 t2", "softmax 120x77 t2",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Fatal(diff)
	}
	for _, r := range rows {
		if r.Ms.Min <= 0 || r.Ms.Reps < 1 || (r.Shape.Op == gemm) != (r.PeakShare > 0) || (r.Shape.Op != gemm) != (r.CopyShare > 0) || (r.Stored != "" && r.Stored != "f32" && r.Threads == 2) != (r.Slowdown > 0) {
			t.Errorf("%+v", r)
		}
	}
}

func TestPlan(t *testing.T) {
	l := limits.Limits{Threads: 2, FMA: limits.Rate{One: 1, All: 2}}
	e := Entry{Shape: Shape{Op: gemm, X: []int{1000, 1000}, Weight: []int{1000, 1000}}, Main: true} // 2 s on one thread at the peak
	for name, c := range map[string]struct {
		o       Options
		main    bool
		threads int
		want    int
	}{
		"too long on one":     {Options{Threads: 2, Longest: 1500 * time.Millisecond}, true, 1, 0},
		"not on two":          {Options{Threads: 2, Longest: 1500 * time.Millisecond}, true, 2, 4},
		"all":                 {Options{Threads: 2, All: true}, false, 1, 1},
		"not a main one":      {Options{Threads: 2, Longest: time.Hour}, false, 2, 0},
		"one thread there is": {Options{Threads: 1, Longest: time.Hour}, true, 1, 4},
	} {
		e.Main = c.main
		if got := plan(c.o, l, e, c.threads); len(got) != c.want {
			t.Errorf("%s: %d rows, want %d", name, len(got), c.want)
		}
	}
	rows := []Row{{Stored: "f32", Shape: e.Shape, Threads: 2, Ms: stat.Summary{Min: 2}}, {Stored: "f16", Shape: e.Shape, Threads: 2, Ms: stat.Summary{Min: 3}}}
	if finish(rows, l); rows[1].Slowdown != 1.5 {
		t.Errorf("slowdown %v, want 1.5", rows[1].Slowdown)
	}
}
