package serve

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/bench/peer"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// TestXL compares the networks of a tiny Stable Diffusion XL with the reference's numbers.
func TestXL(t *testing.T) {
	goldens := filepath.Join("..", "..", "testdata", "golden", "sdxl")
	set, err := weights.OpenFile(filepath.Join(goldens, "tensors", "tiny-sdxl.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	const size = "unet.12x16"
	read := func(name string) (tensor.DType, []int, []byte) {
		t.Helper()
		dtype, shape, ok := set.Info(name)
		data, err := set.Data(name)
		if !ok || err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return dtype, shape, data
	}
	floats := func(name string) ([]float32, []int) {
		t.Helper()
		dtype, shape, data := read(name)
		n, _ := tensor.Shape(shape).Elems()
		values := make([]float32, n)
		if err := tensor.Widen(values, dtype, data); err != nil {
			t.Fatal(err)
		}
		return values, shape
	}
	dir := t.TempDir()
	input := func(name string) peer.Tensor {
		t.Helper()
		path := filepath.Join(dir, name)
		var in peer.Tensor
		var err error
		if strings.HasSuffix(name, ".ids") {
			_, shape, data := read(name)
			ids := make([]int32, len(data)/8)
			for i := range ids {
				ids[i] = int32(binary.LittleEndian.Uint64(data[8*i:]))
			}
			in, err = peer.WriteI64(path, ids, shape...)
		} else {
			values, shape := floats(name)
			in, err = peer.WriteF32(path, values, shape...)
		}
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	states2, shape := floats("text2.hidden.3")
	pooled, width := floats("text2.pooled")
	var both []float32
	for i := range shape[0] {
		n := len(states2) / shape[0]
		both = slices.Concat(both, states2[i*n:][:n], pooled[i*width[1]:][:width[1]])
	}
	states, _ := floats("text.hidden.2")
	noise, _ := floats(size + ".t501.out")
	step, err := peer.WriteF32(filepath.Join(dir, "step"), []float32{501}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for network, c := range map[string]struct {
		in   map[string]peer.Tensor
		want []float32
	}{
		peer.TextEncoder:  {map[string]peer.Tensor{peer.InputIDs: input("text.ids")}, states},
		peer.TextEncoder2: {map[string]peer.Tensor{peer.InputIDs: input("text2.ids")}, both},
		peer.UNet: {map[string]peer.Tensor{
			peer.InputSample: input(size + ".sample"), peer.InputTimestep: step, peer.InputStates: input("unet.context"),
			peer.InputPooled: input("unet.text_embeds"), peer.InputTimeIDs: input("unet.time_ids"),
		}, noise},
	} {
		var request, answers bytes.Buffer
		if err := json.NewEncoder(&request).Encode(peer.Request{Op: "run", Inputs: c.in}); err != nil {
			t.Fatal(err)
		}
		if err := Main(t.Context(), Options{Model: filepath.Join(goldens, "tiny-sdxl"), Network: network, Threads: 2}, &request, &answers); err != nil {
			t.Fatal(err)
		}
		lines := json.NewDecoder(&answers)
		var hello peer.Hello
		var reply peer.Reply
		if err := lines.Decode(&hello); err != nil {
			t.Fatal(err)
		}
		if err := lines.Decode(&reply); err != nil || reply.Output == nil {
			t.Fatalf("%s: %+v, %v", network, reply, err)
		}
		got, err := reply.Output.Floats()
		if err != nil || len(got) != len(c.want) {
			t.Fatalf("%s: %d values, want %d, %v", network, len(got), len(c.want), err)
		}
		most, largest := 0.0, 0.0
		for i, v := range c.want {
			most, largest = max(most, math.Abs(float64(v)-float64(got[i]))), max(largest, math.Abs(float64(v)))
		}
		if most > 5e-5*largest {
			t.Errorf("%s is off by %g of %g", network, most, largest)
		}
	}
}
