package sampler

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// Every sequence must be torch's, bit for bit.
func TestGeneratorGolden(t *testing.T) {
	golden := readArrays(t, goldenDir+"/torch_cpu_rng.safetensors")
	var sequences, values, different int
	compare := func(key string, got, want []float32) {
		sequences++
		for i := range want {
			values++
			if got[i] != want[i] {
				if different++; different < 10 {
					t.Errorf("%s[%d] = %v, want %v", key, i, got[i], want[i])
				}
			}
		}
	}
	for key, want := range golden {
		var kind string
		var seed uint64
		var n int
		if _, err := fmt.Sscanf(strings.ReplaceAll(key, ".", " "), "%s %d %d", &kind, &seed, &n); err != nil && kind != "rand" {
			t.Fatalf("%s: %v", key, err)
		}
		switch kind {
		case "rand":
			got := make([]float32, len(want.data))
			NewGenerator(seed).Uniform(got)
			compare(key, got, want.data)
		case "randn":
			compare(key, Noise(seed, 0, n), want.data)
		case "randn_next":
			g := NewGenerator(seed)
			got := make([]float32, max(n, len(want.data)))
			g.Normal(got[:n])
			g.Normal(got[:len(want.data)])
			compare(key, got, want.data)
		}
	}
	if sequences != len(golden) || sequences == 0 {
		t.Errorf("%d of %d sequences compared", sequences, len(golden))
	}
	t.Logf("%d sequences, %d of %d values differ", sequences, different, values)
}

// A draw depends on nothing but seed, number and size, in whatever order draws are asked for.
func TestNoiseIsPure(t *testing.T) {
	for _, n := range []int{1, 3, 8, 15, 16, 17, 40, 700} {
		g, want := NewGenerator(7), make([][]float32, 6)
		for i := range want {
			want[i] = make([]float32, n)
			g.Normal(want[i])
		}
		s := NewSource(7)
		for _, draw := range []int{0, 1, 2, 5, 3, 3, 0, 4} {
			got := make([]float32, n)
			s.Draw(draw, got)
			if !slices.Equal(got, want[draw]) || !slices.Equal(Noise(7, draw, n), want[draw]) {
				t.Errorf("n %d draw %d differs from the sequence", n, draw)
			}
		}
	}
}

func TestFMA32RoundsOnce(t *testing.T) {
	// 1 + 2^-24 + 2^-80 lies just above the middle between two float32 values, where rounding
	// first to float64 would lose the last part and then round down to even.
	a := float32(math.Ldexp(1, -40))
	if got, want := fma32(a, a, 1), float32(1); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	x := float32(1 + math.Ldexp(1, -12))
	y := float32(1 - math.Ldexp(1, -12))
	c := float32(math.Ldexp(1, -24))
	if got := fma32(x, y, c); got != 1 {
		t.Errorf("got %v, want 1", got)
	}
	// (1+2^-12)^2 = 1 + 2^-11 + 2^-24: a tie, broken by 2^-80.
	if got, want := fma32(x, x, float32(math.Ldexp(1, -80))), math.Nextafter32(float32(1+math.Ldexp(1, -11)), 2); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func BenchmarkNoise(b *testing.B) {
	dst := make([]float32, 4*64*64)
	g := NewGenerator(1)
	for b.Loop() {
		g.Normal(dst)
	}
}
