package controlnet

import (
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// onDisk are the tensors of a file of the goldens.
func onDisk(t *testing.T, path ...string) map[string]tensor.Shape {
	t.Helper()
	set, err := weights.OpenFile(filepath.Join(append([]string{"../../../testdata/golden/formats/control"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	out := map[string]tensor.Shape{}
	for _, name := range set.Names() {
		_, out[name], _ = set.Info(name)
	}
	return out
}

// A file in the original names has the tensors of diffusers' file, each under one name, and nothing else.
func TestLocateOriginalNames(t *testing.T) {
	for file, config := range map[string]string{"sd-bare": "sd", "xl-control_model": "xl"} {
		in, want := onDisk(t, file+".safetensors"), onDisk(t, config, "diffusion_pytorch_model.safetensors")
		var names []string
		for name := range in {
			names = append(names, name)
		}
		stored, ok, err := Locate(names)
		if err != nil || !ok {
			t.Fatalf("%s: %v, %v", file, ok, err)
		}
		used := map[string]bool{}
		for own, name := range stored {
			if used[name] {
				t.Errorf("%s: %s is there under two names", file, name)
			}
			used[name] = true
			got, expected := in[name], want[own]
			a, _ := got.Elems()
			if b, _ := expected.Elems(); expected == nil || a != b || got[0] != expected[0] {
				t.Errorf("%s: %s %v is %s, which diffusers has as %v", file, name, got, own, expected)
			}
		}
		if len(used) != len(in) || len(stored) != len(want) {
			t.Errorf("%s: %d of %d tensors, %d names where diffusers has %d", file, len(used), len(in), len(stored), len(want))
		}
	}
}
