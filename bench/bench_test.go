package main

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		name    string
		samples []float64
		want    summary
	}{
		{"none", nil, summary{}},
		{"one", []float64{3}, summary{Median: 3, Min: 3, Max: 3}},
		{"even", []float64{4, 1, 3, 2}, summary{Median: 2.5, Min: 1, Max: 4, Spread: 1.5 / 2.5}},
		{"odd, an outlier", []float64{10, 12, 11, 1000, 9}, summary{Median: 11, Min: 9, Max: 1000, Spread: 2.0 / 11}},
		{"all zero", []float64{0, 0}, summary{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := append([]float64(nil), c.samples...)
			if diff := cmp.Diff(c.want, summarize(c.samples), cmpopts.EquateApprox(0, 1e-12)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, c.samples); diff != "" {
				t.Error("the samples were changed:", diff)
			}
		})
	}
}

func TestCompareValues(t *testing.T) {
	got, err := compareValues([]float32{1, -4, 2}, []float32{1, -4.5, 2})
	if err != nil || math.Abs(got.Relative-0.5/4.5) > 1e-12 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := compareValues([]float32{1}, nil); err == nil {
		t.Error("results of different sizes were compared")
	}
}

func TestWire(t *testing.T) {
	want := []float32{0, -1.5, math.MaxFloat32, math.SmallestNonzeroFloat32}
	if diff := cmp.Diff(want, toFloats(toBytes(want))); diff != "" {
		t.Error(diff)
	}
}

// fake is a side with fixed results, which may fail from some call on.
type fake struct {
	seconds float64
	failAt  int // 0 never
	calls   int
}

var errFake = errors.New("it broke")

func (f *fake) do(_ context.Context, t task) (outcome, error) {
	if f.calls++; f.calls == f.failAt {
		return outcome{}, errFake
	}
	rows := map[operation]string{encode: "encode", denoise: "denoise", decode: "decode_png", whole: "image"}
	return outcome{seconds: map[string]float64{rows[t.op]: f.seconds}, values: []float32{2, 1}, shape: []int{2}}, nil
}

func fakeReport() report { return newReport(options{threads: 2, reps: 2}, &engine{model: "m"}) }

func rowOf(r *report, name string) row {
	for _, w := range r.Rows {
		if w.Name == name {
			return *w
		}
	}
	return row{}
}

func TestMeasure(t *testing.T) {
	r := fakeReport()
	us, them := &fake{seconds: 0.01}, &fake{seconds: 0.02}
	problem, err := measure(t.Context(), options{reps: 2, warmups: 1}, us, them, nil, &r)
	if problem != nil || err != nil {
		t.Fatal(problem, err)
	}
	r.finish(nil)
	if us.calls != 12 || them.calls != 12 {
		t.Errorf("%d and %d calls, want 3 repetitions of 4 on both sides", us.calls, them.calls)
	}
	w := rowOf(&r, "image")
	if len(w.OurSamples) != 2 || len(w.TheirSamples) != 2 || math.Abs(w.Ratio-0.5) > 1e-9 || w.Check == nil || w.Check.Relative != 0 {
		t.Errorf("image: %+v", w)
	}
	table := r.table()
	for _, want := range []string{"whole image, 20 steps", "10.00", "20.00", "0.50", "0.0e+00", "FMA peak"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
}

func TestMeasureWithoutPeer(t *testing.T) {
	for name, c := range map[string]struct {
		them    side
		problem error
		want    string
		theirs  int // samples of the encoder
	}{
		"never there":        {nil, errNoPeer, "no peer: none was asked for", 0},
		"fails at the sixth": {&fake{seconds: 1, failAt: 6}, nil, "no peer: left out after 1 of 2 repetitions: it broke", 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := fakeReport()
			problem, err := measure(t.Context(), options{reps: 2}, &fake{seconds: 0.01}, c.them, c.problem, &r)
			if err != nil {
				t.Fatal(err)
			}
			r.Peer.Problem = problem.Error()
			r.finish(nil)
			if w := rowOf(&r, "encode"); len(w.OurSamples) != 2 || len(w.TheirSamples) != c.theirs {
				t.Errorf("encode: %+v", w)
			}
			if table := r.table(); !strings.Contains(table, c.want) {
				t.Errorf("the table lacks %q:\n%s", c.want, table)
			}
		})
	}
}

func TestMeasureEndsWithUs(t *testing.T) {
	r := fakeReport()
	if _, err := measure(t.Context(), options{reps: 1}, &fake{failAt: 2}, nil, errNoPeer, &r); !errors.Is(err, errFake) {
		t.Errorf("got %v, want our own error", err)
	}
}

func TestPeerWithoutPython(t *testing.T) {
	for _, python := range []string{"", "no-such-python"} {
		if p, _, err := startPeer(t.Context(), options{python: python, threads: 1}); p != nil || err == nil {
			t.Errorf("python %q: got %v, %v", python, p, err)
		}
	}
}
