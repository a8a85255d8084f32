package modeldir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// attention is one of tiny-v's U-Net, with its queries, keys and values in one matrix of width columns.
const (
	attention = "mid_block.attentions.0.transformer_blocks.0.attn1"
	width     = 48
)

func fused(s *nn.Scope) {
	from := func(name string) device.Slice { return device.Slice{Name: name + ".weight", Rows: width} }
	a := s.Sub(attention)
	a.Assemble("qkv", device.Matrix, tensor.Shape{3 * width, width}, from("to_q"), from("to_k"), from("to_v"))
	turned := from("to_out.0")
	turned.Transposed = true
	a.Assemble("out", device.Matrix, tensor.Shape{width, width}, turned)
	a.Vector("to_out.0.bias", width)
}

func others(name string) bool { return !strings.HasPrefix(name, attention) }

// TestAssembledPrints: the print of a network whose parameters are assembled is that of its tensors, however it was loaded, and
// a tensor that changes is told by its own name.
func TestAssembledPrints(t *testing.T) {
	dir := copyModel(t)
	d := &Dir{path: dir}
	net, err := d.Network(UNetFolder, Options{}, fused, others)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	plain, err := d.Network(UNetFolder, Options{}, func(s *nn.Scope) {
		a := s.Sub(attention)
		for _, name := range []string{"to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"} {
			a.Matrix(name, width, width)
		}
		a.Vector("to_out.0.bias", width)
	}, others)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	dev, err := cpu.New(cpu.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	load := func(n *Network, p *weights.Prints) error {
		n.Watch(p)
		w, err := dev.Load(t.Context(), n.Manifest(), device.LoadPlan{}, n.Source(), nil)
		if err == nil {
			w.Free()
		}
		return err
	}
	prints := []*weights.Prints{{}, {}}
	for i, n := range []*Network{&net, &plain} {
		if _, known := n.Print(prints[i]); known {
			t.Error("a print is known before anything was read")
		}
		if err := load(n, prints[i]); err != nil {
			t.Fatal(err)
		}
	}
	got, known := net.Print(prints[0])
	if want, _ := plain.Print(prints[1]); !known || got != want {
		t.Errorf("print %x, %v; want %x", got, known, want)
	}

	source := net.Source()
	section, err := source.Section(attention + ".to_k.weight")
	if err != nil {
		t.Fatal(err)
	}
	path, key := filepath.Join(dir, UNetFolder, "diffusion_pytorch_model.safetensors"), make([]byte, section.Size())
	if _, err := section.ReadAt(key, 0); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file[bytes.Index(file, key)+9]++
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	var e *weights.Error
	if err := load(&net, prints[0]); !errors.Is(err, weights.ErrChanged) || !errors.As(err, &e) || e.Tensor != attention+".to_k.weight" {
		t.Errorf("behind a change of the keys: %v", err)
	}
}

// TestAssembledOutline: without weights, shapes and the type of tensors that parameters are assembled from are known from the
// index.
func TestAssembledOutline(t *testing.T) {
	var names []string
	for _, name := range []string{"to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"} {
		names = append(names, fmt.Sprintf("%q: %q", attention+"."+name, "diffusion_pytorch_model-00001-of-00001.safetensors"))
	}
	outline := func(names []string) (Network, error) {
		dir := t.TempDir()
		text := fmt.Sprintf(`{"metadata": {"total_size": %d}, "weight_map": {%s}}`, 4*(4*width*width+width), strings.Join(names, ", "))
		if err := errors.Join(os.Mkdir(filepath.Join(dir, UNetFolder), 0o700), os.WriteFile(filepath.Join(dir, UNetFolder, "config.json"), []byte(`{}`), 0o600),
			os.WriteFile(filepath.Join(dir, UNetFolder, "diffusion_pytorch_model.safetensors.index.json"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return (&Dir{path: dir}).Network(UNetFolder, Options{Outline: true, Resident: tensor.I8}, fused, nil)
	}
	p, err := outline(names)
	if err != nil {
		t.Fatal(err)
	}
	for _, param := range p.Manifest().Params {
		if param.DType != tensor.F32 {
			t.Errorf("%s is of %v, want the index's F32", param.Name, param.DType)
		}
	}
	var all nn.TensorErrors
	if _, err := outline(slices.Delete(names, 1, 2)); !errors.As(err, &all) || len(all) != 1 || all[0].Fault != nn.Missing || all[0].Tensor != attention+".to_k.weight" {
		t.Errorf("without keys: %v", err)
	}
}
