package weights

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenDirPrefers(t *testing.T) {
	const single, listed, variant, variantListed = "model.safetensors", "model.safetensors.index.json", "model.fp16.safetensors", "model.safetensors.index.fp16.json"
	for _, c := range []struct {
		has  []string
		want string // the marker tensor of the file that is opened
	}{
		{[]string{single, listed, variant, variantListed}, single},
		{[]string{listed, variant}, listed},
		{[]string{variant, variantListed}, variant},
		{[]string{variantListed}, variantListed},
		{[]string{"other.safetensors", variant}, "other.safetensors"},
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
		s, err := OpenDir(dir, "model", "other")
		if err != nil {
			t.Errorf("%v: %v", c.has, err)
			continue
		}
		if got := s.Names(); len(got) != 1 || got[0] != c.want {
			t.Errorf("%v: opened the file of %v, want %s", c.has, got, c.want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestShards(t *testing.T) {
	dir := t.TempDir()
	one := write(t, dir, "m-00001-of-00002.safetensors", bytesFile(map[string][]byte{"a": {1, 2}, "b": {3}}))
	two := write(t, dir, "m-00002-of-00002.safetensors", bytesFile(map[string][]byte{"c": {4, 5, 6}, "unlisted": {7}}))
	home := write(t, dir, "m.safetensors.index.json", index(t, map[string]string{
		"a": filepath.Base(one), "b": filepath.Base(one), "c": filepath.Base(two),
	}))
	s, err := OpenDir(dir, "m")
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
		"empty":                 {"", "m.safetensors.index.json", "", "got nothing"},
		"not JSON":              {"{", "m.safetensors.index.json", "", "ends too early"},
		"not UTF-8":             {"{\"weight_map\":{\"a\xff\":\"1.safetensors\"}}", "m.safetensors.index.json", "", "not UTF-8"},
		"no map":                {"{}", "m.safetensors.index.json", "", "no weight_map"},
		"empty map":             {`{"weight_map":{}}`, "m.safetensors.index.json", "", "no weight_map"},
		"map is null":           {`{"weight_map":null}`, "m.safetensors.index.json", "", "null where { belongs"},
		"file is a number":      {`{"weight_map":{"a":1}}`, "m.safetensors.index.json", "", "1 where a string belongs"},
		"tensor twice":          {`{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}`, "m.safetensors.index.json", "", `key "a" twice`},
		"file above":            {`{"weight_map":{"a":"../1.safetensors"}}`, "m.safetensors.index.json", "a", `got "../1.safetensors"`},
		"file by way of above":  {`{"weight_map":{"a":"x/../../1.safetensors"}}`, "m.safetensors.index.json", "a", "same folder"},
		"file below":            {`{"weight_map":{"a":"x/1.safetensors"}}`, "m.safetensors.index.json", "a", "same folder"},
		"absolute file":         {`{"weight_map":{"a":"/etc/passwd"}}`, "m.safetensors.index.json", "a", "same folder"},
		"back slash":            {`{"weight_map":{"a":"..\\1.safetensors"}}`, "m.safetensors.index.json", "a", "same folder"},
		"a pickle":              {`{"weight_map":{"a":"1.bin"}}`, "m.safetensors.index.json", "a", `got "1.bin"`},
		"no name":               {`{"weight_map":{"a":""}}`, "m.safetensors.index.json", "a", "same folder"},
		"a shard is missing":    {`{"weight_map":{"a":"1.safetensors","b":"3.safetensors"}}`, "3.safetensors", "", "got nothing"},
		"a shard is damaged":    {`{"weight_map":{"a":"1.safetensors","b":"bad.safetensors"}}`, "bad.safetensors", "", "got 3 bytes"},
		"a shard is a folder":   {`{"weight_map":{"a":"1.safetensors","b":"folder.safetensors"}}`, "folder.safetensors", "", "got a folder"},
		"the shard lacks it":    {`{"weight_map":{"a":"1.safetensors","b":"1.safetensors"}}`, "1.safetensors", "b", "no such tensor"},
		"it is in another":      {`{"weight_map":{"a":"other.safetensors","o":"1.safetensors"}}`, "other.safetensors", "a", "got it in"},
		"two shards have it":    {`{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`, "2.safetensors", "a", "one file only"},
		"text after the object": {`{"weight_map":{"a":"1.safetensors"}} 1`, "m.safetensors.index.json", "", "more text"},
		"too large":             {`{"weight_map":{"a":"1.safetensors"}}` + strings.Repeat(" ", maxIndex), "m.safetensors.index.json", "", "at most 16777216 bytes"},
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
			write(t, dir, "m.safetensors.index.json", []byte(c.index))
			_, err := OpenDir(dir, "m")
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
	for name, c := range map[string]struct{ file, text string }{
		"nothing":  {"", "one of m.safetensors, m.safetensors.index.json, m.fp16.safetensors, m.safetensors.index.fp16.json, got none of them"},
		"a pickle": {"pytorch_model.bin", "pickled weights only (pytorch_model.bin)"},
		"another":  {"n.safetensors", "got n.safetensors"},
	} {
		dir := t.TempDir()
		if c.file != "" {
			write(t, dir, c.file, nil)
		}
		_, err := OpenDir(dir, "m")
		var e *Error
		if !errors.As(err, &e) || e.File != dir || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", name, err, c.text)
		}
	}
	for _, dir := range []string{filepath.Join(t.TempDir(), "absent"), write(t, t.TempDir(), "file", nil)} {
		_, err := OpenDir(dir, "m")
		var e *Error
		if !errors.As(err, &e) || e.File != dir {
			t.Errorf("%s: %v, want an Error", dir, err)
		}
	}
}

// A link that leads nowhere is reported as such, not passed over for a variant.
func TestOpenDirReportsBrokenLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "m.fp16.safetensors", bytesFile(nil))
	path := filepath.Join(dir, "m.safetensors")
	if err := os.Symlink("nowhere", path); err != nil {
		t.Skip(err)
	}
	_, err := OpenDir(dir, "m")
	var e *Error
	if !errors.As(err, &e) || e.File != path {
		t.Errorf("%v, want an Error of %s", err, path)
	}
}

// The indexes of published models, when they are at hand beside the repository. Their shards are not.
func TestPublishedIndexes(t *testing.T) {
	for path, tensors := range map[string]int{
		"text_encoder_2/model.safetensors.index.json":                219,
		"transformer/diffusion_pytorch_model.safetensors.index.json": 1156,
	} {
		full := filepath.Join(repo, "../shared/assets/configs/flux", filepath.FromSlash(path))
		if _, err := os.Stat(full); err != nil {
			t.Skip("no published configs beside the repository")
		}
		shards, _, err := readIndex(full)
		if err != nil || len(shards) != tensors {
			t.Errorf("%s: %d tensors, %v, want %d", path, len(shards), err, tensors)
		}
		if _, err := OpenDir(filepath.Dir(full), "model", "diffusion_pytorch_model"); err == nil || !strings.Contains(err.Error(), "00001-of-") {
			t.Errorf("%s: %v, want the first shard missed", path, err)
		}
	}
}
