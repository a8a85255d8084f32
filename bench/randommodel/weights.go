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

// writeWeights writes the parameters of m as float16 in a safetensors file.
func writeWeights(w io.Writer, component string, m *device.Manifest, progress func(done, all int64)) error {
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	at := int64(0)
	for _, p := range m.Params {
		n, ok := p.Shape.Elems()
		if !ok {
			return fmt.Errorf("parameter %s: shape %v", p.Name, p.Shape)
		}
		if header[p.Name] != nil {
			return fmt.Errorf("parameter %s is declared twice", p.Name)
		}
		header[p.Name] = entry{"F16", storedShape(p), [2]int64{at, at + 2*int64(n)}}
		at += 2 * int64(n)
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
	for _, p := range m.Params {
		if err := writeTensor(out, component, p); err != nil {
			return err
		}
		n, _ := p.Shape.Elems()
		done += 2 * int64(n)
		progress(done, at)
	}
	return out.Flush()
}

// writeTensor writes normal values that keep the size of what goes through: weights with a deviation of
// 1/sqrt(fan_in), norms near the identity.
func writeTensor(out *bufio.Writer, component string, p device.Param) error {
	mean, deviation := distribution(p)
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%s/%s", component, p.Name)
	random := rand.New(rand.NewPCG(hash.Sum64(), 1)) //nolint:gosec // weights are no secret and must come out the same again
	n, _ := p.Shape.Elems()
	for range n {
		h := toF16(float32(mean + deviation*random.NormFloat64()))
		if err := out.WriteByte(byte(h)); err != nil {
			return err
		}
		if err := out.WriteByte(byte(h >> 8)); err != nil {
			return err
		}
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
func toF16(v float32) uint16 {
	const least = 0x1p-14 - 0x1p-26 // from here on, eleven bits round up to the smallest normal one
	if -least < v && v < least {
		return uint16(math.Float32bits(v) >> 16 & 0x8000)
	}
	var h [1]uint16
	kernel.NarrowF16(h[:], []float32{v})
	return h[0]
}

func slashes(name string) string { return strings.ReplaceAll(name, ".", "/") }
