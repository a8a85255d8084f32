package weights

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// TestHeaders: what is told of a network is the same with and without its data; a file that lacks a part of it is damaged.
func TestHeaders(t *testing.T) {
	const header = `{"a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}}`
	whole := built(header, []byte("data"))
	listing := func(total any) []byte {
		data, err := json.Marshal(map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": map[string]string{"a": "one.safetensors"}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	const name, listed = "model.safetensors", "model.safetensors.index.json"
	for what, c := range map[string]struct {
		files    map[string][]byte
		known    bool // shapes
		complete bool
		names    []string
		bytes    int64
		err      bool
	}{
		"nothing":               {},
		"a whole file":          {files: map[string][]byte{name: whole}, known: true, complete: true},
		"a header":              {files: map[string][]byte{name: built(header, nil)}, known: true},
		"half of the data":      {files: map[string][]byte{name: whole[:len(whole)-1]}, err: true},
		"a header without end":  {files: map[string][]byte{name: whole[:20]}, err: true},
		"an index":              {files: map[string][]byte{listed: listing(4)}, names: []string{"a"}, bytes: 4},
		"a size as a float":     {files: map[string][]byte{listed: listing(json.RawMessage("4.0"))}, names: []string{"a"}, bytes: 4},
		"an index without size": {files: map[string][]byte{listed: listing("many")}, names: []string{"a"}},
		"an index of headers":   {files: map[string][]byte{listed: listing(4), "one.safetensors": built(header, nil)}, known: true},
		"an index and files":    {files: map[string][]byte{listed: listing(4), "one.safetensors": whole}, known: true, complete: true},
		"no index":              {files: map[string][]byte{listed: []byte("{}")}, err: true},
	} {
		dir := t.TempDir()
		for file, data := range c.files {
			write(t, dir, file, data)
		}
		h, err := OpenHeaders(dir, Transformers())
		if c.err {
			var e *Error
			if !errors.As(err, &e) || e.File == "" {
				t.Errorf("%s: %+v, error %v", what, h, err)
			}
			continue
		}
		if err != nil || (h.Set != nil) != c.known || h.Complete != c.complete || !slices.Equal(h.Names, c.names) || h.Bytes != c.bytes || h.Path == "" {
			t.Errorf("%s: %+v, error %v", what, h, err)
		}
		if !c.known {
			continue
		}
		if dtype, shape, ok := h.Set.Info("a"); !ok || dtype != tensor.F16 || !shape.Equal(tensor.Shape{2, 1}) {
			t.Errorf("%s: %v %v %v", what, dtype, shape, ok)
		}
		if _, err := h.Set.Data("a"); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: read from a closed set: %v", what, err)
		}
	}
}

// FuzzIndex: whatever the index, it is refused with an Error or lists tensors in files of its folder.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":8},"weight_map":{"a":"m-1.safetensors"}}`))
	f.Add([]byte(`{"metadata":{"total_size":-1e300},"weight_map":{"a":"../m.safetensors"}}`))
	f.Add([]byte(`{"metadata":[{}],"metadata":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := write(t, t.TempDir(), "model.safetensors.index.json", data)
		shards, total, err := readIndex(path)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.File != path || e.Expected == "" || e.Got == "" {
				t.Errorf("%T %v", err, err)
			}
			return
		}
		if len(shards) == 0 || total < 0 {
			t.Errorf("%v, %d bytes", shards, total)
		}
	})
}

// TestOpenOutline: a file that ends behind its header tells shapes and no data; anything else is as OpenFile has it.
func TestOpenOutline(t *testing.T) {
	whole, err := os.ReadFile("../../models/starter/unet/diffusion_pytorch_model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	end := 8 + int(binary.LittleEndian.Uint64(whole))
	path := filepath.Join(t.TempDir(), "a.safetensors")
	for length, want := range map[int]struct{ opens, complete bool }{len(whole): {true, true}, end: {true, false}, end - 1: {}, end + 1: {}, len(whole) - 1: {}} {
		if err := os.WriteFile(path, whole[:length], 0o600); err != nil {
			t.Fatal(err)
		}
		set, err := OpenOutline(path)
		if (err == nil) != want.opens {
			t.Errorf("%d of %d bytes: %v", length, len(whole), err)
		}
		if err != nil {
			continue
		}
		if _, shape, ok := set.Info("conv_in.bias"); set.Complete() != want.complete || !ok || len(shape) != 1 {
			t.Errorf("%d of %d bytes: complete %v, conv_in.bias %v", length, len(whole), set.Complete(), shape)
		}
		if _, err := set.Data("conv_in.bias"); (err == nil) != want.complete {
			t.Errorf("%d of %d bytes: data, %v", length, len(whole), err)
		}
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	}
}
