package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOpenDirPrefers has in each folder files that say which they are, and tells which is opened.
func TestOpenDirPrefers(t *testing.T) {
	const (
		single, listed                = "model.safetensors", "model.safetensors.index.json"
		variant, variantListed        = "model.fp16.safetensors", "model.safetensors.index.fp16.json"
		other, olderListed            = "model.non_ema.safetensors", "model.safetensors.fp16.index.json"
		neighbour, ofNobody           = "diffusion_pytorch_model.safetensors", "model-00001-of-00002.safetensors"
		unetSingle, unetListed        = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"
		unetVariant, unetVariantIndex = "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors.index.fp16.json"
	)
	for _, c := range []struct {
		naming  Naming
		has     []string
		want    string // the marker tensor of the file that is opened
		variant string
	}{
		{Transformers(), []string{single, listed, variant, variantListed, neighbour}, single, ""},
		{Transformers(), []string{listed, variant, neighbour, ofNobody}, listed, ""},
		{Transformers(), []string{variant, variantListed, neighbour, ofNobody}, variant, "fp16"},
		{Transformers(), []string{variantListed, "model.fp16-00001-of-00002.safetensors"}, variantListed, "fp16"},
		{Transformers(), []string{olderListed}, olderListed, "fp16"},
		{Transformers(), []string{other}, other, "non_ema"},
		{Diffusers(), []string{unetSingle, unetListed, single, listed}, unetListed, ""},
		{Diffusers(), []string{unetSingle, single, listed, unetVariant, unetVariantIndex}, unetSingle, ""},
		{Diffusers(), []string{unetVariant, unetVariantIndex, single}, unetVariantIndex, "fp16"},
		{Diffusers(), []string{unetVariant, single}, unetVariant, "fp16"},
	} {
		dir := t.TempDir()
		for _, name := range c.has {
			file := bytesFile(map[string][]byte{name: {1}})
			if strings.HasSuffix(name, ".json") {
				write(t, dir, "shard-of-"+name+".safetensors", file)
				file = index(t, map[string]string{name: "shard-of-" + name + ".safetensors"})
			}
			write(t, dir, name, file)
		}
		s, err := OpenDir(dir, c.naming)
		if err != nil {
			t.Errorf("%v: %v", c.has, err)
			continue
		}
		if got := s.Names(); len(got) != 1 || got[0] != c.want || s.Variant() != c.variant {
			t.Errorf("%v: opened the file of %v, variant %q, want %s, %q", c.has, got, s.Variant(), c.want, c.variant)
		}
		h, err := OpenHeaders(dir, c.naming)
		if err != nil || h.Set == nil || !slices.Equal(h.Set.Names(), s.Names()) || h.Set.Variant() != c.variant || h.Path != s.Where("") {
			t.Errorf("%v: the headers are those of %+v, %v", c.has, h, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestOpenDirPickled reads torch's files under the names that libraries had for them, where there are no safetensors.
func TestOpenDirPickled(t *testing.T) {
	zoo := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(formats, "torch", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	one, two := zoo("numpy2.pt"), zoo("module-state-dict.pt") // with the tensor w, and with 0.bias among others
	shards := map[string]string{"w": "pytorch_model-00001-of-00002.bin", "0.bias": "pytorch_model-00002-of-00002.bin"}
	for name, c := range map[string]struct {
		naming  Naming
		files   map[string][]byte
		want    string // a tensor
		variant string
		text    string // of the error
	}{
		"transformers":  {Transformers(), map[string][]byte{"pytorch_model.bin": one, "training_args.bin": two}, "w", "", ""},
		"diffusers":     {Diffusers(), map[string][]byte{"diffusion_pytorch_model.bin": one, "diffusion_pytorch_model.fp16.bin": two}, "w", "", ""},
		"a variant":     {Diffusers(), map[string][]byte{"diffusion_pytorch_model.fp16.bin": one}, "w", "fp16", ""},
		"safetensors":   {Transformers(), map[string][]byte{"pytorch_model.bin": one, "model.fp16.safetensors": bytesFile(map[string][]byte{"s": {1}})}, "s", "fp16", ""},
		"shards":        {Transformers(), map[string][]byte{"pytorch_model.bin.index.json": index(t, shards), shards["w"]: one, shards["0.bias"]: two}, "0.bias", "", ""},
		"a hidden zip":  {Transformers(), map[string][]byte{"model.safetensors": one}, "", "", "as its name says"},
		"a mixed index": {Transformers(), map[string][]byte{"model.safetensors.index.json": index(t, shards), shards["w"]: one, shards["0.bias"]: two}, "", "", "the name of a .safetensors file"},
	} {
		dir := t.TempDir()
		for file, data := range c.files {
			write(t, dir, file, data)
		}
		s, err := OpenDir(dir, c.naming)
		h, errH := OpenHeaders(dir, c.naming)
		if c.text != "" {
			if err == nil || !strings.Contains(err.Error(), c.text) || errH == nil {
				t.Errorf("%s: %v, headers %v, want %q", name, err, errH, c.text)
			}
			continue
		}
		if err := errors.Join(err, errH); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		defer s.Close()
		if _, _, ok := s.Info(c.want); !ok || s.Variant() != c.variant || !h.Complete || !slices.Equal(h.Set.Names(), s.Names()) {
			t.Errorf("%s: %v, variant %q, headers %+v; want %s, %q", name, s.Names(), s.Variant(), h, c.want, c.variant)
		}
	}
}

func TestShards(t *testing.T) {
	dir := t.TempDir()
	one := write(t, dir, "model-00001-of-00002.safetensors", bytesFile(map[string][]byte{"a": {1, 2}, "b": {3}}))
	two := write(t, dir, "model-00002-of-00002.safetensors", bytesFile(map[string][]byte{"c": {4, 5, 6}, "unlisted": {7}}))
	home := write(t, dir, "model.safetensors.index.json", index(t, map[string]string{
		"a": filepath.Base(one), "b": filepath.Base(one), "c": filepath.Base(two),
	}))
	s, err := OpenDir(dir, Transformers())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, data := range map[string]string{"a": "\x01\x02", "b": "\x03", "c": "\x04\x05\x06", "unlisted": "\x07"} {
		if got, err := s.Data(name); err != nil || string(got) != data {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if s.Where("a") != one || s.Where("c") != two || s.Where("missing") != home {
		t.Errorf("Where %q %q %q", s.Where("a"), s.Where("c"), s.Where("missing"))
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestHostileIndexes(t *testing.T) {
	shard := bytesFile(map[string][]byte{"a": {1}})
	for name, c := range map[string]struct {
		index        string
		file, tensor string
		text         string
	}{
		"empty":                 {"", "model.safetensors.index.json", "", "got nothing"},
		"not JSON":              {"{", "model.safetensors.index.json", "", "ends too early"},
		"not UTF-8":             {"{\"weight_map\":{\"a\xff\":\"1.safetensors\"}}", "model.safetensors.index.json", "", "not UTF-8"},
		"no map":                {"{}", "model.safetensors.index.json", "", "no weight_map"},
		"empty map":             {`{"weight_map":{}}`, "model.safetensors.index.json", "", "no weight_map"},
		"map is null":           {`{"weight_map":null}`, "model.safetensors.index.json", "", "null where { belongs"},
		"file is a number":      {`{"weight_map":{"a":1}}`, "model.safetensors.index.json", "", "1 where a string belongs"},
		"tensor twice":          {`{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}`, "model.safetensors.index.json", "", `key "a" twice`},
		"file above":            {`{"weight_map":{"a":"../1.safetensors"}}`, "model.safetensors.index.json", "a", `got "../1.safetensors"`},
		"file by way of above":  {`{"weight_map":{"a":"x/../../1.safetensors"}}`, "model.safetensors.index.json", "a", "same folder"},
		"file below":            {`{"weight_map":{"a":"x/1.safetensors"}}`, "model.safetensors.index.json", "a", "same folder"},
		"absolute file":         {`{"weight_map":{"a":"/etc/passwd"}}`, "model.safetensors.index.json", "a", "same folder"},
		"back slash":            {`{"weight_map":{"a":"..\\1.safetensors"}}`, "model.safetensors.index.json", "a", "same folder"},
		"a pickle":              {`{"weight_map":{"a":"1.bin"}}`, "model.safetensors.index.json", "a", `got "1.bin"`},
		"no name":               {`{"weight_map":{"a":""}}`, "model.safetensors.index.json", "a", "same folder"},
		"a shard is missing":    {`{"weight_map":{"a":"1.safetensors","b":"3.safetensors"}}`, "3.safetensors", "", "got nothing"},
		"a shard is damaged":    {`{"weight_map":{"a":"1.safetensors","b":"bad.safetensors"}}`, "bad.safetensors", "", "got 3 bytes"},
		"a shard is a folder":   {`{"weight_map":{"a":"1.safetensors","b":"folder.safetensors"}}`, "folder.safetensors", "", "got a folder"},
		"the shard lacks it":    {`{"weight_map":{"a":"1.safetensors","b":"1.safetensors"}}`, "1.safetensors", "b", "no such tensor"},
		"it is in another":      {`{"weight_map":{"a":"other.safetensors","o":"1.safetensors"}}`, "other.safetensors", "a", "got it in"},
		"two shards have it":    {`{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`, "2.safetensors", "a", "one file only"},
		"text after the object": {`{"weight_map":{"a":"1.safetensors"}} 1`, "model.safetensors.index.json", "", "more text"},
		"too large":             {`{"weight_map":{"a":"1.safetensors"}}` + strings.Repeat(" ", maxIndex), "model.safetensors.index.json", "", "at most 16777216 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "1.safetensors", shard)
			write(t, dir, "2.safetensors", shard)
			write(t, dir, "other.safetensors", bytesFile(map[string][]byte{"o": {1}}))
			write(t, dir, "bad.safetensors", []byte("bad"))
			if err := os.Mkdir(filepath.Join(dir, "folder.safetensors"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "model.safetensors.index.json", []byte(c.index))
			_, err := OpenDir(dir, Transformers())
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want an Error", err)
			}
			if e.File != filepath.Join(dir, c.file) || e.Tensor != c.tensor || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %q, want %q in %s, tensor %q", err, c.text, c.file, c.tensor)
			}
		})
	}
}

func TestOpenDirSaysWhatIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		naming Naming
		files  []string
		text   string
	}{
		"nothing":          {Transformers(), nil, "expected model.safetensors or model.safetensors.index.json, or one variant of them, got none of them"},
		"nothing, unet":    {Diffusers(), nil, "expected diffusion_pytorch_model.safetensors.index.json or diffusion_pytorch_model.safetensors, or one"},
		"pickles":          {Transformers(), []string{"pytorch_model.a.bin", "pytorch_model.b.bin"}, "got variants only, a and b"},
		"other pickles":    {Diffusers(), []string{"pytorch_model.bin", "model.ckpt"}, "got model.ckpt, pytorch_model.bin"},
		"another library":  {Diffusers(), []string{"model.safetensors", "pytorch_model.bin"}, "got model.safetensors"},
		"another, text":    {Transformers(), []string{"diffusion_pytorch_model.safetensors"}, "got diffusion_pytorch_model.safetensors"},
		"several variants": {Transformers(), []string{"model.non_ema.safetensors", "model.fp16.safetensors", "model.safetensors.index.fp16.json"}, "got variants only, fp16 and non_ema"},
		"shards only":      {Transformers(), []string{"model-00001-of-00002.safetensors"}, "got model-00001-of-00002.safetensors"},
	} {
		dir := t.TempDir()
		for _, file := range c.files {
			write(t, dir, file, nil)
		}
		_, err := OpenDir(dir, c.naming)
		var e *Error
		if !errors.As(err, &e) || e.File != dir || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", name, err, c.text)
		}
	}
	for _, dir := range []string{filepath.Join(t.TempDir(), "absent"), write(t, t.TempDir(), "file", nil)} {
		_, err := OpenDir(dir, Transformers())
		var e *Error
		if !errors.As(err, &e) || e.File != dir {
			t.Errorf("%s: %v, want an Error", dir, err)
		}
	}
}

// A link that leads nowhere is reported as such, not passed over for a variant.
func TestOpenDirReportsBrokenLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "model.fp16.safetensors", bytesFile(nil))
	path := filepath.Join(dir, "model.safetensors")
	if err := os.Symlink("nowhere", path); err != nil {
		t.Skip(err)
	}
	_, err := OpenDir(dir, Transformers())
	var e *Error
	if !errors.As(err, &e) || e.File != path {
		t.Errorf("%v, want an Error of %s", err, path)
	}
}

// TestLargeIndexes: indexes as large as those of T5 v1.1 XXL's encoder and FLUX.1's transformer are read whole, and a shard
// that is not there is told.
func TestLargeIndexes(t *testing.T) {
	for name, c := range map[string]struct {
		tensors, files int
		bytes          int64
		naming         Naming
	}{
		"model":                   {219, 2, 9_524_621_312, Transformers()},
		"diffusion_pytorch_model": {1156, 3, 23_782_357_120, Diffusers()},
	} {
		dir, shards := t.TempDir(), map[string]string{}
		for i := range c.tensors {
			shards[fmt.Sprintf("transformer_blocks.%d.attn.to_q.weight", i)] = fmt.Sprintf("%s-%05d-of-%05d.safetensors", name, 1+i*c.files/c.tensors, c.files)
		}
		text, err := json.Marshal(map[string]any{"metadata": map[string]int64{"total_size": c.bytes}, "weight_map": shards})
		if err != nil {
			t.Fatal(err)
		}
		got, total, err := readIndex(write(t, dir, name+".safetensors.index.json", text))
		if err != nil || total != c.bytes || !maps.Equal(got, shards) {
			t.Errorf("%s: %d tensors of %d bytes, %v; want %d of %d", name, len(got), total, err, c.tensors, c.bytes)
		}
		if _, err := OpenDir(dir, c.naming); err == nil || !strings.Contains(err.Error(), "00001-of-") {
			t.Errorf("%s: %v, want the first shard missed", name, err)
		}
	}
}
