package randommodel

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/kernel"
)

// entry is a tensor in the header of a safetensors file.
type entry struct {
	DType   string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// random is a tensor of normal values.
type random struct {
	name            string
	shape           []int
	mean, deviation float64
}

func (r random) elems() int {
	n := 1
	for _, d := range r.shape {
		n *= d
	}
	return n
}

// parameters are the tensors of a manifest: normal values that keep the size of what goes through, weights with a deviation of
// 1/sqrt(fan_in), norms near the identity. linear is as configs.Files has it.
func parameters(m *device.Manifest, linear bool) (out []random) {
	for _, p := range m.Params {
		mean, deviation := distribution(p)
		out = append(out, random{p.Name, storedShape(p, linear), mean, deviation})
	}
	return out
}

// writeWeights writes tensors as float16 in a safetensors file. The values depend on seed and the tensor's name.
func writeWeights(w io.Writer, seed string, list []random, progress func(done, all int64)) error {
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	at := int64(0)
	for _, r := range list {
		if header[r.name] != nil {
			return fmt.Errorf("parameter %s is declared twice", r.name)
		}
		end := at + 2*int64(r.elems())
		header[r.name] = entry{"F16", r.shape, [2]int64{at, end}}
		at = end
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	out := bufio.NewWriterSize(w, 1<<20)
	if _, err := out.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(text)))); err != nil {
		return err
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	done := int64(0)
	for _, r := range list {
		if err := writeTensor(out, seed, r); err != nil {
			return err
		}
		done += 2 * int64(r.elems())
		progress(done, at)
	}
	return out.Flush()
}

// writeTensor writes the values of a tensor, some at a time.
func writeTensor(out *bufio.Writer, seed string, r random) error {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%s/%s", seed, r.name)
	source := rand.New(rand.NewPCG(hash.Sum64(), 1)) //nolint:gosec // weights are no secret and must come out the same again
	var values [1 << 12]float32
	var halves [len(values)]uint16
	var bytes [2 * len(values)]byte
	for left := r.elems(); left > 0; {
		n := min(left, len(values))
		for i := range n {
			values[i] = float32(r.mean + r.deviation*source.NormFloat64())
		}
		toF16(halves[:n], values[:n])
		for i, h := range halves[:n] {
			binary.LittleEndian.PutUint16(bytes[2*i:], h)
		}
		if _, err := out.Write(bytes[:2*n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// distribution is the mean and the standard deviation of a parameter's values.
func distribution(p device.Param) (mean, deviation float64) {
	switch {
	case p.Layout != device.Vector:
		fan := 1
		for _, n := range p.Shape[1:] {
			fan *= n
		}
		return 0, 1 / math.Sqrt(float64(fan))
	case strings.Contains(p.Name, "norm") && strings.HasSuffix(p.Name, ".weight"):
		return 1, 0.1
	}
	return 0, 0.05
}

// toF16 rounds to the nearest float16, to even between two. What is too small for a normal one becomes zero, so that no
// side of a benchmark meets denormal numbers; what is too large becomes infinite.
func toF16(dst []uint16, src []float32) {
	const least = 0x1p-14 - 0x1p-26 // from here on, eleven bits round up to the smallest normal one
	kernel.NarrowF16(dst, src)
	for i, v := range src {
		if -least < v && v < least {
			dst[i] = uint16(math.Float32bits(v) >> 16 & 0x8000)
		}
	}
}

func slashes(name string) string { return strings.ReplaceAll(name, ".", "/") }
