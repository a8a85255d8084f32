package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// eachVariant runs one test body for every variant of this build and machine.
func eachVariant(t *testing.T, body func(t *testing.T, r *rand.Rand)) {
	for _, name := range Variants() {
		t.Run(name, func(t *testing.T) {
			use(t, name)
			body(t, rand.New(rand.NewPCG(1, 2)))
		})
	}
}

func use(tb testing.TB, name string) {
	before := Variant()
	if err := Select(name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = Select(before) })
}

// lengths meets every tail of loops of 8 and of 16, the empty slice and a few whole turns.
func lengths() []int {
	var n []int
	for i := range 35 {
		n = append(n, i)
	}
	return append(n, 64, 77, 320, 1003)
}

// guarded returns n elements between two guards that must survive: a masked store must not reach past the end.
func guarded(t *testing.T, n int) []float32 {
	const guard = 123.25
	buf := make([]float32, n+16)
	for i := range buf {
		buf[i] = guard
	}
	t.Cleanup(func() {
		for i, v := range buf {
			if (i < 8 || i >= 8+n) && v != guard {
				t.Errorf("length %d: wrote at %d", n, i-8)
			}
		}
	})
	return buf[8 : 8+n : 8+n]
}

func normal(r *rand.Rand, n int, scale float64) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(r.NormFloat64() * scale)
	}
	return s
}

// near fails unless got is within tol of want, tol being absolute for |want| <= 1 and relative above if floor is 1;
// a floor of 0 makes it relative throughout. NaN equals NaN and infinities equal themselves.
func near(t *testing.T, what string, i int, got float32, want, tol, floor float64) {
	t.Helper()
	g := float64(got)
	if g == want || math.IsNaN(g) && math.IsNaN(want) {
		return
	}
	if d := math.Abs(g - want); !(d <= tol*max(math.Abs(want), floor)) {
		t.Fatalf("%s: element %d: got %v, want %v, difference %.3g, tolerance %.3g",
			what, i, got, want, d, tol*max(math.Abs(want), floor))
	}
}

func TestSelect(t *testing.T) {
	before := Variant()
	t.Cleanup(func() { _ = Select(before) })
	for _, name := range Variants() {
		if err := Select(name); err != nil || Variant() != name {
			t.Errorf("Select(%q) = %v, Variant() = %q", name, err, Variant())
		}
	}
	if err := Select("sse9"); err == nil || !strings.Contains(err.Error(), "sse9") || !strings.Contains(err.Error(), AVX512) {
		t.Errorf("Select of an unknown variant: %v, want an error naming it and the choice", err)
	}
	if got, want := Variant(), Generic; got != want {
		t.Errorf("a failed Select left %q, want %q", got, want)
	}
	if err := Select(""); err != nil || Variant() != Variants()[0] {
		t.Errorf("Select of the empty name: %v, %q", err, Variant())
	}
	for name, has := range map[string]bool{AVX2: hasAVX2, AVX512: hasAVX512} {
		if err := Select(name); (err == nil) != has {
			t.Errorf("Select(%q) = %v, present: %v", name, err, has)
		}
	}
}

// TestCheck fails if TRIPTYCH_CPU names a variant that is not here: tests of absent variants are not run, which must not
// look like success where one was asked for.
func TestCheck(t *testing.T) {
	if err := Check(); err != nil {
		t.Error(err)
	}
}

// TestEnvironment starts this test again with TRIPTYCH_CPU set: it is read at start.
func TestEnvironment(t *testing.T) {
	if os.Getenv("KERNEL_TEST_CHILD") != "" {
		fmt.Printf("variant %s, error %v\n", Variant(), Check())
		return
	}
	for value, want := range map[string]string{
		"":        "variant " + Variants()[0] + ", error <nil>",
		Generic:   "variant generic, error <nil>",
		"pentium": "variant " + Variants()[0] + `, error kernel: select variant "pentium": unknown`,
	} {
		child := exec.Command(os.Args[0], "-test.run=^TestEnvironment$")
		child.Env = append(os.Environ(), "KERNEL_TEST_CHILD=1", Env+"="+value)
		out, err := child.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s=%s: %v, %s; want %s", Env, value, err, out, want)
		}
	}
}

func TestFMAPeak(t *testing.T) {
	eachVariant(t, func(*testing.T, *rand.Rand) {
		for _, n := range []int{-1, 0, 1, 1000} {
			FMAPeak(n) // it must come back
		}
	})
}

func TestTooShortPanics(t *testing.T) {
	eachVariant(t, func(t *testing.T, _ *rand.Rand) {
		long, short := make([]float32, 9), make([]float32, 8)
		rows := []*float32{&long[0], &long[0], &long[0], &long[0], &long[0], &long[0]}
		for name, f := range map[string]func(){
			"Add":           func() { Add(long, long, short) },
			"Finish":        func() { Finish(long, long, nil, short, nil, None) },
			"Activate":      func() { Activate(long, short, SiLU) },
			"GEGLU":         func() { GEGLU(long, long, short) },
			"ScaleShift":    func() { ScaleShift(long, long, long, short, 9, 1, None) },
			"LayerNorm":     func() { LayerNorm(long, long, long, short, 0) },
			"WidenF16":      func() { WidenF16(long, make([]uint16, 8)) },
			"ColumnMoments": func() { ColumnMoments(make([]float64, 9), make([]float64, 9), long, short, 9, 1) },
			"Moments of x":  func() { ColumnMoments(make([]float64, 2), make([]float64, 2), long, long, 2, 5) },
			"PackKeys":      func() { PackKeys(make([]float32, 15), long, 1, 9, 1) },
			"Scores":        func() { Scores(new([ScoreElems]float32), new([AttentionRows]*float32), long, 1, 9) },
			"Weigh":         func() { Weigh(new([ScoreElems]float32), MaxKeys+1, 1, new(Softmax)) },
			"Mix values":    func() { Mix(make([]float32, 48), new([ScoreElems]float32), long, 1, 2, 9, nil) },
			"Means":         func() { Means(long, short, 1, 9, 1, new(Softmax)) },
			"Mix sums":      func() { Mix(make([]float32, 47), new([ScoreElems]float32), long, 1, 1, 8, nil) },
			"WidenI8":       func() { WidenI8(make([]float32, 32), make([]int8, 16), new([TileCols]float32)) },
			"QuantizeI8":    func() { QuantizeI8(make([]int8, 9), short, 1) },
			"PackU8 dst":    func() { PackU8(make([]uint8, 16*9-1), make([]uint8, 16*9), 16, 9, 1) },
			"PackU16 src":   func() { PackU16(make([]uint16, 16*9), make([]uint16, 16*9-1), 16, 9, 1) },
			"PackU32 rows":  func() { PackU32(make([]uint32, 16*9), make([]uint32, 17*9), 17, 9, 1) },
			"Multiply panels": func() {
				Multiply(&Product{Out: long, Rows: rows, Taps: 1, K: 1, Panels: long[:31], Step: 16, M: 1, N: 2})
			},
			"Multiply rows": func() { Multiply(&Product{Out: long, Rows: rows, Taps: 2, K: 1, Panels: long, M: 1, N: 1}) },
			"Multiply tiles": func() {
				Multiply(&Product{Out: long, Rows: rows, TileStep: 6, Taps: 1, K: 1, Panels: long, M: 7, N: 1})
			},
			"Multiply out": func() {
				Multiply(&Product{Out: long[:31], Apart: 16, Rows: rows, Taps: 1, K: 1, Panels: long, M: 1, N: 2})
			},
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: no panic", name)
					}
				}()
				f()
			}()
		}
	})
}
