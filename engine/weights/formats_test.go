package weights

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// formats is the folder of files as people have them.
var formats = filepath.Join(repo, "testdata", "golden", "formats")

// zooFile is a file of formats and what is to come of it.
type zooFile struct{ File, Group, Expect, Tensors, Prefix, Why string }

func zoo(t testing.TB) []zooFile {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(formats, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct{ Files []json.RawMessage }
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	var files []zooFile
	for _, raw := range index.Files {
		var of struct{ Group string }
		if err := json.Unmarshal(raw, &of); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains([]string{"torch", "hostile", "safetensors"}, of.Group) {
			continue // some of these have several files
		}
		var f zooFile
		if err := json.Unmarshal(raw, &f); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// said is what the error of a file that is refused says among other things, for those whose fault has a name.
var said = map[string]string{
	"torch/bad-quantized.pt": "quantized tensor", "torch/bad-sparse.pt": "sparse tensor", "torch/bad-meta.pt": "meta tensor",
	"torch/bad-torchscript.pt": "TorchScript", "torch/bad-whole-module.pth": "whole module of class torch.nn.modules.container.Sequential",
	"torch/bad-truncated.pt": "cut off", "torch/bad-truncated-legacy.pt": "cut off in a storage: 5 bytes are missing",
	"torch/bad-html.ckpt": "web page", "torch/bad-lfs-pointer.ckpt": "git lfs pull", "torch/bad-empty.pt": "0 bytes", "torch/bad-tar.pt": "tar archive",
	"torch/bad-storage-missing.pt": `record "archive/data/0"`, "torch/bad-crc.pt": "CRC-32",

	"hostile/01-os-system.pt": "os.system, which can run code", "hostile/02-eval-protocol-0.pt": "__builtin__.eval", "hostile/03-hidden-in-weights.ckpt": "posix.system",
	"hostile/04-popped.ckpt": "system", "hostile/05-stack-global-memo.pt": "system", "hostile/06-getattr.pt": "names", "hostile/07-legacy-magic.pt": "subprocess.getoutput",
	"hostile/08-inst-obj.pt": "which can run code", "hostile/09-newobj-ex.pt": "subprocess.Popen", "hostile/10-nested-pickle.pt": "torch.storage._load_from_bytes",
	"hostile/11-bomb-string.pt": "a length of 2305843009213693952", "hostile/12-bomb-bytearray.pt": "a length of 9223372036854775807", "hostile/13-bomb-long.pt": "at most 32 bytes",
	"hostile/14-laughs.pt": "without tensors", "hostile/15-deep.pt": "data.pkl", "hostile/15b-deep-stored.pt": "at most 200 deep", "hostile/16-marks.pt": "data.pkl",
	"hostile/18-tensor-bomb.ckpt": "a tensor of at most", "hostile/19-storage-behind.ckpt": "inside its storage of 4 values", "hostile/20-negative.ckpt": "not negative",
	"hostile/21-storage-lies.ckpt": "1048576 values", "hostile/22-key-path.ckpt": "without a path", "hostile/23-zip-bomb.ckpt": "a compression to no less than a 64th",
	"hostile/24-two-records.ckpt": "twice", "hostile/25-extension.pt": "opcode 0x82", "hostile/26-dotted.pt": "serialization.os.system", "hostile/27-build.ckpt": "os.system",
	"hostile/28-negative-long.pt": "at most 32 bytes",

	"safetensors/bad-overlap.safetensors": "where a ends", "safetensors/bad-hole.safetensors": "where a ends", "safetensors/bad-trailing.safetensors": "got 32 bytes",
	"safetensors/bad-short.safetensors": "2 are missing", "safetensors/bad-header-huge.safetensors": "at most 100000000 bytes", "safetensors/bad-header-100mb.safetensors": "at most 100000000 bytes",
	"safetensors/bad-duplicate.safetensors": `"a" twice`, "safetensors/bad-size.safetensors": "32 bytes of F32 [2, 4]", "safetensors/bad-overflow.safetensors": "below 2^63",
	"safetensors/bad-negative.safetensors": "dimension -2", "safetensors/bad-float-shape.safetensors": "dimension 2.0", "safetensors/bad-metadata-number.safetensors": "1 where a string belongs",
	"safetensors/bad-dtype.safetensors": "Q4_0", "safetensors/bad-not-object.safetensors": "begins with", "safetensors/bad-deep-json.safetensors": "[ where { belongs",
	"safetensors/bad-pickle.safetensors": "one of torch.save",
}

// TestFormats opens every torch file, hostile pickle and safetensors file: each gives the tensors that the index has for it or an Error
// that says why not, without much memory or time.
func TestFormats(t *testing.T) {
	refused := 0
	for _, c := range zoo(t) {
		t.Run(c.File, func(t *testing.T) {
			path := filepath.Join(formats, filepath.FromSlash(c.File))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			s, err := readAll(path)
			runtime.ReadMemStats(&after)
			if took, bytes := time.Since(start), after.TotalAlloc-before.TotalAlloc; took > 2*time.Second || bytes > 100_000_000 {
				t.Errorf("%v, %d bytes allocated", took, bytes)
			}
			var e *Error
			switch {
			case err == nil && c.Expect == "refuse":
				t.Errorf("opened with %v: %s", slices.Sorted(maps.Keys(s)), c.Why)
			case err == nil:
				if c.Tensors != "" {
					compare(t, s, filepath.Join(formats, filepath.FromSlash(c.Tensors)), c.Prefix)
				}
			case c.Expect == "tensors":
				t.Error(err)
			case !errors.As(err, &e) || e.File != path || e.Expected == "" || len(err.Error()) > 2000 || !strings.Contains(err.Error(), said[c.File]):
				t.Errorf("%v, want an Error with %q: %s", err, said[c.File], c.Why)
			default:
				refused++
			}
		})
	}
	if refused < 50 {
		t.Errorf("only %d files refused", refused)
	}
}

// stored is a tensor with its type by the file's name for it.
type stored struct{ dtype, shape, data string }

// readAll reads a file whole.
func readAll(path string) (map[string]stored, error) {
	s, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	all := map[string]stored{}
	for _, name := range s.Names() {
		_, shape, _ := s.Info(name)
		data, err := s.Data(name)
		if err != nil {
			return nil, err
		}
		all[name] = stored{s.TypeName(name), shape.String(), string(data)}
	}
	return all, nil
}

func compare(t *testing.T, got map[string]stored, path, prefix string) {
	t.Helper()
	all, err := readAll(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]stored{}
	for name, v := range all {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			want[rest] = v
		}
	}
	if !maps.Equal(got, want) || len(want) == 0 {
		t.Errorf("tensors %v, want %v", got, want)
	}
}

// TestOtherTorchFiles opens every file of torch that is no example of torch's format.
func TestOtherTorchFiles(t *testing.T) {
	noTensors := map[string]string{
		"lora/bad-hypernetwork.pt":          "hypernetwork",
		"checkpoints/not-a-state-dict.ckpt": "without tensors",
	}
	opened := 0
	for _, pattern := range []string{"*/*.pt", "*/*.pth", "*/*.ckpt", "*/*.bin", "*/*/*.bin", "*/*/*.pt"} {
		paths, err := filepath.Glob(filepath.Join(formats, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			name, err := filepath.Rel(formats, path)
			if err != nil {
				t.Fatal(err)
			}
			name = filepath.ToSlash(name)
			if strings.HasPrefix(name, "torch/") || strings.HasPrefix(name, "hostile/") {
				continue
			}
			all, err := readAll(path)
			if want := noTensors[name]; want != "" {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want an error with %q", name, err, want)
				}
				continue
			}
			if err != nil || len(all) == 0 {
				t.Errorf("%s: %d tensors, %v", name, len(all), err)
			}
			opened++
		}
	}
	if opened < 40 {
		t.Errorf("only %d files", opened)
	}
}

// TestMetadata has the strings of a header, and none of torch's.
func TestMetadata(t *testing.T) {
	for file, want := range map[string]map[string]string{
		"safetensors/reversed.safetensors": {"format": "pt", "x": "ü🦊"},
		"torch/zip.pt":                     {},
	} {
		s, err := OpenFile(filepath.Join(formats, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := s.Metadata(); !maps.Equal(got, want) {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

// TestScaled finds scaled float8 by its tensors, and nothing else.
func TestScaled(t *testing.T) {
	for file, want := range map[string]string{
		"checkpoints/sd-fp8-scaled.safetensors": "model.diffusion_model.input_blocks.0.0.scale_weight",
		"checkpoints/sd-fp8.safetensors":        "",
		"checkpoints/sd.safetensors":            "",
		"lora/sd-fp8-e4m3.safetensors":          "",
	} {
		s, err := OpenFile(filepath.Join(formats, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := s.Scaled(); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	s, err := OpenFile(write(t, t.TempDir(), "m.safetensors", bytesFile(map[string][]byte{"a.weight": {1}, "model.a.comfy_quant": {1}, "scale_weights": {1}})))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Scaled(); got != "model.a.comfy_quant" {
		t.Errorf("%q, want that of ComfyUI", got)
	}
}
