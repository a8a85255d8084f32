package stageengine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

const (
	textFile = "text_encoder/model.safetensors"
	unetFile = "unet/diffusion_pytorch_model.safetensors"
	vaeFile  = "vae/diffusion_pytorch_model.safetensors"
)

// stored is a tensor of a safetensors file.
type stored struct {
	dtype string
	shape []int
	data  []byte
}

func readTensors(t *testing.T, path string) map[string]stored {
	t.Helper()
	file, err := weights.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := map[string]stored{}
	for _, name := range file.Names() {
		dtype, shape, _ := file.Info(name)
		data, err := file.Data(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = stored{dtype.String(), shape, data}
	}
	return out
}

func writeTensors(t *testing.T, path string, tensors map[string]stored) {
	t.Helper()
	header, data := map[string]any{}, []byte(nil)
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		v := tensors[name]
		header[name] = map[string]any{"dtype": v.dtype, "shape": v.shape, "data_offsets": []int{len(data), len(data) + len(v.data)}}
		data = append(data, v.data...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	if err := os.WriteFile(path, append(append(out, text...), data...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// zero writes another file with all weights of one zero.
func zero(t *testing.T, path, other string) {
	t.Helper()
	tensors := readTensors(t, path)
	for _, v := range tensors {
		clear(v.data)
	}
	writeTensors(t, other, tensors)
}

// shard writes the tensors of a file as two, and their index.
func shard(t *testing.T, path, index string) {
	t.Helper()
	tensors, listed := readTensors(t, path), map[string]string{}
	names := slices.Sorted(maps.Keys(tensors))
	for i, part := range [][]string{names[:len(names)/2], names[len(names)/2:]} {
		file, of := fmt.Sprintf("part-%d.safetensors", i), map[string]stored{}
		for _, name := range part {
			listed[name], of[name] = file, tensors[name]
		}
		writeTensors(t, filepath.Join(filepath.Dir(path), file), of)
	}
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": listed})
	if err == nil {
		err = os.WriteFile(index, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// widened writes a file's float32 values as float64, exactly.
func widened(t *testing.T, path string) {
	t.Helper()
	tensors := readTensors(t, path)
	for name, v := range tensors {
		wide := stored{dtype: "F64", shape: v.shape}
		for at := 0; at < len(v.data); at += 4 {
			wide.data = binary.LittleEndian.AppendUint64(wide.data, math.Float64bits(float64(math.Float32frombits(binary.LittleEndian.Uint32(v.data[at:])))))
		}
		tensors[name] = wide
	}
	writeTensors(t, path, tensors)
}

// linked moves every file of a model to a folder beside it and leaves links, as in the snapshots of the hub's cache.
func linked(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	blobs := filepath.Join(filepath.Dir(dir), "blobs")
	if err := os.Mkdir(blobs, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, file := range append(files, filepath.Join(dir, "model_index.json")) {
		blob := filepath.Join(blobs, fmt.Sprint(i))
		if err := os.Rename(file, blob); err != nil {
			t.Fatal(err)
		}
		target, err := filepath.Rel(filepath.Dir(file), blob)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, file); err != nil {
			t.Skip(err)
		}
	}
}

// TestFilesAsTheyAreFound makes a picture of diffusers' from its weights in other files, beside others that must not win.
func TestFilesAsTheyAreFound(t *testing.T) {
	const model = "tiny-sd15"
	golden := filepath.Join(repo, "testdata/golden", model, "golden")
	run := readRuns(t, golden)[0]
	var plain []int64 // bytes of each stage
	e, d, v := open(t, filepath.Join(repo, "testdata/golden", model))
	for _, s := range []*Stage{e, d, v} {
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		plain = append(plain, info.Components[0].WeightsBytes)
	}
	for name, c := range map[string]struct {
		change   func(t *testing.T, path func(string) string)
		warnings string // in the log
		streamed bool
	}{
		"an index before a single file": {func(t *testing.T, path func(string) string) {
			for _, file := range []string{unetFile, vaeFile} {
				shard(t, path(file), path(file)+".index.json")
				zero(t, path(file), path(file))
			}
		}, "", false},
		"a single file before an index": {func(t *testing.T, path func(string) string) {
			right, zeros := path(textFile), path("text_encoder/zeros")
			zero(t, right, zeros)
			shard(t, zeros, right+".index.json")
		}, "", false},
		"names of the other library": {func(t *testing.T, path func(string) string) {
			zero(t, path(unetFile), path("unet/model.safetensors"))
			zero(t, path(vaeFile), path("vae/model.safetensors"))
			zero(t, path(textFile), path("text_encoder/diffusion_pytorch_model.safetensors"))
		}, "", false},
		"a variant alone": {func(t *testing.T, path func(string) string) {
			if err := os.Rename(path(unetFile), path("unet/diffusion_pytorch_model.fp16.safetensors")); err != nil {
				t.Fatal(err)
			}
		}, "unet: uses the fp16 variant", false},
		"a whole CLIP": {func(t *testing.T, path func(string) string) {
			whole := map[string]stored{"logit_scale": {"F32", []int{}, make([]byte, 4)}, "vision_model.embeddings.position_ids": {"I64", []int{1, 1}, make([]byte, 8)}}
			for name, v := range readTensors(t, path(textFile)) {
				name = "text_model." + strings.TrimPrefix(name, "text_model.")
				whole[name], whole[strings.Replace(name, "text_model", "vision_model", 1)] = v, stored{"F8_E4M3", []int{3}, []byte("123")}
			}
			writeTensors(t, path(textFile), whole)
		}, `text_encoder: ignores tensors that the network does not have: \"logit_scale\", \"vision_model.`, false},
		"names with another prefix": {func(t *testing.T, path func(string) string) {
			other := map[string]stored{}
			for name, v := range readTensors(t, path(textFile)) {
				other["clip."+strings.TrimPrefix(name, "text_model.")] = v
			}
			writeTensors(t, path(textFile), other)
		}, "", false},
		"names without a prefix before those with one": {func(t *testing.T, path func(string) string) {
			both := map[string]stored{"foo.bar": {"I8", []int{}, []byte{1}}}
			for name, v := range readTensors(t, path(textFile)) {
				name = strings.TrimPrefix(name, "text_model.")
				both[name], both["text_model."+name] = v, stored{v.dtype, v.shape, make([]byte, len(v.data))}
			}
			writeTensors(t, path(textFile), both)
		}, `\"foo.bar\", \"text_model.`, false},
		"float64": {func(t *testing.T, path func(string) string) {
			for _, file := range []string{textFile, unetFile, vaeFile} {
				widened(t, path(file))
			}
		}, "", false},
		"float64, streamed": {func(t *testing.T, path func(string) string) {
			for _, file := range []string{textFile, unetFile, vaeFile} {
				widened(t, path(file))
			}
		}, "", true},
		"links": {func(t *testing.T, path func(string) string) {
			shard(t, path(vaeFile), path(vaeFile)+".index.json")
			linked(t, path(""))
		}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), model)
			if err := os.CopyFS(dir, os.DirFS(filepath.Join(repo, "testdata/golden", model))); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(dir, "golden")); err != nil {
				t.Fatal(err)
			}
			c.change(t, func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) })
			var resident map[stage.Kind]int64
			if c.streamed {
				resident = map[stage.Kind]int64{stage.KindEncoder: 0, stage.KindDenoiser: 0, stage.KindDecoder: 0}
			}
			e, d, v, _ := streamingStages(t, dir, resident)
			latent, img := generate(t, e, d, v, model, run)
			compareRun(t, golden, run, latent, img)
			if told := logged(t, e.Options); (c.warnings == "") != (told == "") || !strings.Contains(told, c.warnings) {
				t.Errorf("logged %q, want %q", told, c.warnings)
			}
			for i, s := range []*Stage{e, d, v} {
				info, err := s.Info(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Components[0].WeightsBytes; !c.streamed && got != plain[i] {
					t.Errorf("the %v holds %d bytes, %d of plain files", info.Kind, got, plain[i])
				}
			}
		})
	}
}

// logged is what declaring a library's networks writes to the log.
func logged(t *testing.T, o Options) string {
	t.Helper()
	var out bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&out, nil))
	newStage(stage.KindEncoder, o)
	newStage(stage.KindDenoiser, o)
	newStage(stage.KindDecoder, o)
	return out.String()
}
