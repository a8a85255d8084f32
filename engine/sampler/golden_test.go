package sampler

import (
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

const goldenDir = "../../testdata/golden/samplers"

type array struct {
	shape []int
	data  []float32
}

// readArrays reads a safetensors file of float32 tensors.
func readArrays(t testing.TB, path string) map[string]array {
	t.Helper()
	set, err := weights.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	out := map[string]array{}
	for _, name := range set.Names() {
		dtype, shape, _ := set.Info(name)
		raw, err := set.Data(name)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := shape.Elems()
		a := array{shape: shape, data: make([]float32, n)}
		if err := tensor.Widen(a.data, dtype, raw); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = a
	}
	return out
}
