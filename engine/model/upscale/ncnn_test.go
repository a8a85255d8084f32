package upscale_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/nn"
	tensorpkg "github.com/triptych-serving/triptych/engine/tensor"
)

// assets are files of published networks, which are not in this repository.
const assets = "../../../../shared/assets"

// ncnn is the tensors of a compact network that was converted for ncnn, under the names of Real-ESRGAN.
type ncnn map[string]ncnnTensor

type ncnnTensor struct {
	dtype tensorpkg.DType
	shape tensorpkg.Shape
	data  []byte
}

func (n ncnn) Info(name string) (tensorpkg.DType, tensorpkg.Shape, bool) {
	t, ok := n[name]
	return t.dtype, t.shape, ok
}
func (n ncnn) TypeName(name string) string { return n[name].dtype.String() }
func (n ncnn) Where(string) string         { return "ncnn" }
func (n ncnn) Names() []string             { return slices.Sorted(maps.Keys(n)) }

func (n ncnn) Section(name string) (*io.SectionReader, error) {
	return io.NewSectionReader(bytes.NewReader(n[name].data), 0, int64(len(n[name].data))), nil
}

// readNCNN reads convolutions and parametric ReLUs, one behind the other, whose weights lie so in the .bin: those of a
// convolution behind a word that tells their type, biases and slopes as float32.
func readNCNN(t *testing.T, param, bin string) ncnn {
	t.Helper()
	graph, err := os.ReadFile(param)
	if err != nil {
		t.Skip(err)
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		t.Skip(err)
	}
	out, place, in := ncnn{}, 0, 3
	take := func(name string, dtype tensorpkg.DType, shape ...int) {
		elems, _ := tensorpkg.Shape(shape).Elems()
		n := elems * dtype.Size()
		out[name] = ncnnTensor{dtype, shape, data[:n]}
		data = data[(n+3)/4*4:]
	}
	for line := range strings.Lines(string(graph)) {
		var channels, kernel int
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		for _, f := range fields[4:] {
			_, _ = fmt.Sscanf(f, "0=%d", &channels)
			_, _ = fmt.Sscanf(f, "1=%d", &kernel)
		}
		name := fmt.Sprintf("body.%d.", place)
		switch fields[0] {
		case "Convolution":
			dtype := map[uint32]tensorpkg.DType{0: tensorpkg.F32, 0x01306b47: tensorpkg.F16}[binary.LittleEndian.Uint32(data)]
			data = data[4:]
			take(name+"weight", dtype, channels, in, kernel, kernel)
			take(name+"bias", tensorpkg.F32, channels)
			in = channels
		case "PReLU":
			take(name+"weight", tensorpkg.F32, channels)
		default:
			continue
		}
		place++
	}
	if len(data) != 0 {
		t.Fatalf("%s: %d bytes more than the network has", bin, len(data))
	}
	return out
}

// readNumPy reads an array [1, C, h, w] of float32 as [h, w, C].
func readNumPy(t *testing.T, path string, c, h, w int) []float32 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Skip(err)
	}
	data = data[10+int(binary.LittleEndian.Uint16(data[8:])):]
	first, last := make([]float32, c*h*w), make([]float32, c*h*w)
	for i := range first {
		first[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	nn.ToChannelsLast(last, first, 1, c, h*w)
	return last
}

// TestPublished: published compact networks give the pixels of an independent implementation.
func TestPublished(t *testing.T) {
	for bin, c := range map[string]struct{ param, want string }{
		"realesr-general-x4v3": {"realesr-general-x4v3", "realesr_general_x4v3_out"},
		"realesr-animevideov3": {"realesr-animevideov3-x4", "realesr_animevideov3_x4_out"},
	} {
		t.Run(bin, func(t *testing.T) {
			dir := filepath.Join(assets, "sr", "ncnn")
			n := loadFrom(t, readNCNN(t, filepath.Join(dir, c.param+".param"), filepath.Join(dir, bin+".bin")))
			if n.Scale() != 4 {
				t.Fatalf("scale %d", n.Scale())
			}
			golden := filepath.Join(assets, "golden", "numpy_ref")
			in := readNumPy(t, filepath.Join(golden, "sr_in.npy"), 3, 12, 12)
			got, _ := n.upscale(t, in, 12, 12)
			within(t, bin, got, readNumPy(t, filepath.Join(golden, c.want+".npy"), 3, 48, 48), 0)
		})
	}
}
