package upscale_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/upscale"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/weights"
)

const goldens = "../../../testdata/golden"

// row is a file of the goldens.
type row struct {
	File, Group, Expect, Tensors, Tensor, Why string
	Scale                                     int
	Tolerance                                 float64
}

func rows(t *testing.T, group string) (out []row) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(goldens, "formats", "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Files []json.RawMessage }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	for _, file := range index.Files {
		var r row
		if json.Unmarshal(file, &r) == nil && r.Group == group { // others have several files
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		t.Fatalf("no rows of %s", group)
	}
	return out
}

// tensor reads a tensor of a golden, channels last.
func tensor(t *testing.T, path, name string) (v []float32, h, w int) {
	t.Helper()
	set := open(t, path)
	_, shape, ok := set.Info(name)
	data, err := set.Data(name)
	if !ok || err != nil || len(shape) != 4 {
		t.Fatalf("%s: %v, %v", name, shape, err)
	}
	first := make([]float32, len(data)/4)
	for i := range first {
		first[i] = math.Float32frombits(uint32(data[4*i]) | uint32(data[4*i+1])<<8 | uint32(data[4*i+2])<<16 | uint32(data[4*i+3])<<24)
	}
	v = make([]float32, len(first))
	nn.ToChannelsLast(v, first, shape[0], shape[1], shape[2]*shape[3])
	return v, shape[2], shape[3]
}

func open(t *testing.T, path string) *weights.Set {
	t.Helper()
	set, err := weights.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	return set
}

// network is an upscaler that is loaded.
type network struct {
	upscale.Config
	dev     device.Device
	model   *upscale.Model
	scope   *nn.Scope
	weights device.Weights
}

func load(t *testing.T, set *weights.Set) *network { return loadFrom(t, set) }

func loadFrom(t *testing.T, set interface {
	nn.Source
	device.Source
},
) *network {
	t.Helper()
	c, err := upscale.Of(set)
	if err != nil {
		t.Fatal(err)
	}
	n := &network{Config: c, scope: nn.NewScope(set)}
	n.model = upscale.New(n.scope, c)
	if _, err := n.scope.Finish(nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Whole(n.scope); err != nil {
		t.Fatal(err)
	}
	if n.dev, err = cpu.New(cpu.Options{Threads: 2}); err != nil {
		t.Fatal(err)
	}
	if n.weights, err = n.dev.Load(t.Context(), n.scope.Manifest(), device.LoadPlan{}, set, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.weights.Free()
		_ = n.dev.Close()
	})
	return n
}

// upscale gives pixels and the marks of a tape.
func (n *network) upscale(t *testing.T, pixels []float32, h, w int) (out []float32, marks map[string][]float32) {
	t.Helper()
	tape := device.NewTape(n.scope.Manifest())
	tape.KeepMarks = true
	tape.Output("output", n.model.Forward(tape, tape.Input("image", n.Shape(h, w)...)))
	if err := tape.Err(); err != nil {
		t.Fatal(err)
	}
	run, err := n.dev.NewRun(tape, n.weights, device.RunOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Free()
	if err := errors.Join(run.Write("image", n.Input(pixels, h, w)), run.Execute(t.Context())); err != nil {
		t.Fatal(err)
	}
	marks = map[string][]float32{}
	for _, o := range tape.Outputs() {
		elems, _ := o.Array.Shape.Elems()
		marks[o.Name] = make([]float32, elems)
		if err := run.Read(o.Name, marks[o.Name]); err != nil {
			t.Fatal(err)
		}
	}
	return n.Pixels(marks["output"], pixels, h, w), marks
}

// within compares with the reference; a tolerance of 0 is 5e-5 of its largest value.
func within(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	var most, largest float64
	for i := range want {
		most, largest = max(most, math.Abs(float64(got[i]-want[i]))), max(largest, math.Abs(float64(want[i])))
	}
	if tolerance == 0 {
		tolerance = 5e-5 * largest
	}
	if !(most <= tolerance) {
		t.Errorf("%s: off by %.2g, allowed %.2g", what, most, tolerance)
	}
	t.Logf("%s: off by %.2g of %.2g", what, most, largest)
}

// TestFormats: files as people have them give the pixels of the reference, or are refused with what they are.
func TestFormats(t *testing.T) {
	for _, r := range rows(t, "upscalers") {
		t.Run(r.File, func(t *testing.T) {
			set := open(t, filepath.Join(goldens, "formats", r.File))
			if r.Expect == "refuse" {
				refused(t, r, set)
				return
			}
			golden := filepath.Join(goldens, "formats", r.Tensors)
			pixels, h, w := tensor(t, golden, "in")
			want, _, _ := tensor(t, golden, r.Tensor)
			n := load(t, set)
			if n.Scale() != r.Scale {
				t.Errorf("scale %d, want %d", n.Scale(), r.Scale)
			}
			got, _ := n.upscale(t, pixels, h, w)
			within(t, r.Tensor, got, want, r.Tolerance)
		})
	}
}

// refused: the error says what the table says, up to its colon.
func refused(t *testing.T, r row, set *weights.Set) {
	t.Helper()
	c, err := upscale.Of(set)
	if err == nil {
		s := nn.NewScope(set)
		upscale.New(s, c)
		_, err = s.Finish(nil)
	}
	what, _, _ := strings.Cut(strings.TrimPrefix(r.Why, "RealESRGAN "), ":")
	what, _, _ = strings.Cut(what, " ")
	if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), filepath.Base(r.File)) {
		t.Errorf("%v, want the file and %q", err, what)
	}
}

// TestReference: the networks of the reference under all their names, with what lies within them.
func TestReference(t *testing.T) {
	golden := filepath.Join(goldens, "sdxl", "esrgan", "tensors.safetensors")
	pixels, h, w := tensor(t, golden, "in")
	for file, name := range map[string]string{"x4.pth": "x4", "x4-old.pth": "x4", "x4-realsr.safetensors": "x4", "x2-old.pth": "x2", "x2-unshuffle.pth": "x2-unshuffle"} {
		t.Run(file, func(t *testing.T) {
			got, marks := load(t, open(t, filepath.Join(goldens, "sdxl", "esrgan", file))).upscale(t, pixels, h, w)
			if name == "x4" {
				for mark, v := range marks {
					if mark != "output" {
						want, _, _ := tensor(t, golden, "x4.inner."+mark)
						within(t, mark, v, want, 0)
					}
				}
			}
			want, _, _ := tensor(t, golden, name+".out")
			within(t, name, got, want, 0)
		})
	}
}
