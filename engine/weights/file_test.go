package weights

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
)

const repo = "../.."

func TestOpenFile(t *testing.T) {
	header := `{"__metadata__":{"format":"pt"},
		"b":{"dtype":"F16","shape":[2,2],"data_offsets":[4,12]},
		"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"note":{"unknown":[1,{}]}},
		"odd":{"dtype":"F8_E8M0","shape":[3],"data_offsets":[12,15]},
		"new":{"dtype":"F1_FUTURE","shape":[8],"data_offsets":[15,16]},
		"none":{"dtype":"I64","shape":[0,5],"data_offsets":[16,16]}}   `
	data := []byte("0123456789abcdef")
	path := write(t, t.TempDir(), "m.safetensors", built(header, data))
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		name   string
		dtype  tensor.DType
		stored string
		shape  tensor.Shape
		data   string
	}{
		{"b", tensor.F16, "F16", tensor.Shape{2, 2}, "456789ab"},
		{"a", tensor.F32, "F32", tensor.Shape{}, "0123"},
		{"odd", tensor.Invalid, "F8_E8M0", tensor.Shape{3}, "cde"},
		{"new", tensor.Invalid, "F1_FUTURE", tensor.Shape{8}, ""},
		{"none", tensor.I64, "I64", tensor.Shape{0, 5}, ""},
	} {
		dtype, shape, ok := s.Info(want.name)
		if !ok || dtype != want.dtype || !shape.Equal(want.shape) || s.TypeName(want.name) != want.stored {
			t.Errorf("%s: %v %v %v, stored as %s", want.name, dtype, shape, ok, s.TypeName(want.name))
		}
		got, err := s.Data(want.name)
		if want.name == "new" { // there, and not to be read
			var e *Error
			if !errors.As(err, &e) || e.File != path || e.Tensor != "new" || e.Got != "F1_FUTURE" {
				t.Errorf("data of an unknown type: %v", err)
			}
			continue
		}
		if err != nil || string(got) != want.data {
			t.Errorf("%s: data %q, %v, want %q", want.name, got, err, want.data)
		}
	}
	if _, _, ok := s.Info("missing"); ok {
		t.Error("a missing tensor has an Info")
	}
	if s.Where("a") != path || s.Where("missing") != path {
		t.Errorf("Where %q, %q", s.Where("a"), s.Where("missing"))
	}
	if got := strings.Join(s.Names(), " "); got != "a b new none odd" {
		t.Errorf("Names %q", got)
	}
	var e *Error
	if _, err := s.Data("missing"); !errors.As(err, &e) || e.File != path || e.Tensor != "missing" {
		t.Errorf("Data of a missing tensor: %v", err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := s.Data("a"); !errors.Is(err, fs.ErrClosed) || !errors.As(err, &e) {
		t.Errorf("Data after Close: %v", err)
	}
	if len(s.Names()) != 5 {
		t.Error("Names are gone after Close")
	}
}

// Sections are views of the file itself, and of nothing beside the tensor.
func TestSection(t *testing.T) {
	path := write(t, t.TempDir(), "m.safetensors", bytesFile(map[string][]byte{"a": []byte("first"), "b": []byte("second")}))
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, errA := s.Section("a")
	b, errB := s.Section("b")
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	fileA, startA, sizeA := a.Outer()
	fileB, startB, sizeB := b.Outer()
	if fileA != fileB || startB != startA+5 || sizeA != 5 || sizeB != 6 {
		t.Errorf("sections at %d with %d and at %d with %d bytes, want neighbours of 5 and 6 in one file", startA, sizeA, startB, sizeB)
	}
	got := make([]byte, 8)
	if n, err := b.ReadAt(got, 3); n != 3 || err != io.EOF || string(got[:n]) != "ond" {
		t.Errorf("read %q, %v, want the end of the tensor", got[:n], err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := b.ReadAt(got[:1], 0); !errors.Is(err, fs.ErrClosed) || !errors.As(err, &e) || e.Tensor != "b" {
		t.Errorf("reading behind Close: %v", err)
	}
}

// A file that is cut while it is open is an error and no SIGBUS.
func TestFileCutWhileOpen(t *testing.T) {
	path := write(t, t.TempDir(), "m.safetensors", bytesFile(map[string][]byte{"a": make([]byte, 1<<16), "b": make([]byte, 1<<16)}))
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Data("a"); err != nil {
		t.Errorf("the tensor that is still there: %v", err)
	}
	var e *Error
	if _, err := s.Data("b"); !errors.As(err, &e) || e.File != path || e.Tensor != "b" || e.Got != "the end of the file" {
		t.Errorf("the tensor that is cut: %v", err)
	}
}

func TestHostileFiles(t *testing.T) {
	one := func(dtype, shape, offsets string) string {
		return `{"t":{"dtype":"` + dtype + `","shape":` + shape + `,"data_offsets":` + offsets + `}}`
	}
	two := func(first, second string) string {
		return `{"t":{"dtype":"U8","shape":[4],"data_offsets":` + first + `},"u":{"dtype":"U8","shape":[4],"data_offsets":` + second + `}}`
	}
	eight := make([]byte, 8)
	length := func(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), `{"t":1}`...) }
	valid := built(one("U8", "[8]", "[0,8]"), eight)
	for name, c := range map[string]struct {
		file   []byte
		tensor string
		text   string // of the error
	}{
		"empty":                      {nil, "", "got 0 bytes"},
		"a pointer of git-lfs":       {[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"), "", "run git lfs pull"},
		"seven bytes":                {valid[:7], "", "got 7 bytes"},
		"length only":                {valid[:8], "", "got a file of 8 bytes"},
		"header cut":                 {valid[:20], "", "got a file of 20 bytes"},
		"data cut":                   {valid[:len(valid)-1], "t", "got a file with 7 bytes of data"},
		"trailing byte":              {append(valid[:len(valid):len(valid)], 0), "", "expected 8 bytes of data, as the header says, got 9 bytes"},
		"length 2^64-1":              {length(math.MaxUint64), "", "got length 18446744073709551615"},
		"length 2^63":                {length(1 << 63), "", "got length"},
		"length above the bound":     {length(maxHeader + 1), "", "at most 100000000 bytes"},
		"length at the bound":        {length(maxHeader), "", "got a file of 15 bytes"},
		"no header":                  {built("", nil), "", "got nothing"},
		"a pickle":                   {append([]byte("PK\x03\x04\x00\x00\x08\x08"), eight...), "", "got one of torch.save"},
		"a web page":                 {[]byte("\ufeff\n<!doctype html><html>"), "", "a web page"},
		"GGUF":                       {[]byte("GGUF\x03\x00\x00\x00\x00\x00\x00\x00"), "", "a GGUF file"},
		"a picture":                  {[]byte("\x89PNG\r\n\x1a\n"), "", "a picture"},
		"not an object":              {built("[1]", nil), "", "begins with"},
		"white space first":          {built(" {}", nil), "", "begins with"},
		"not JSON":                   {built(`{"t":`, nil), "t", "ends too early"},
		"not UTF-8":                  {built("{\"t\xff\":1}", nil), "", "not UTF-8"},
		"text after the object":      {built(one("U8", "[8]", "[0,8]")+"{}", eight), "", "more text"},
		"NUL after the object":       {built(one("U8", "[8]", "[0,8]")+"\x00", eight), "", "more text"},
		"trailing comma":             {built(`{"t":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},}`, eight), "", "invalid character"},
		"tensor twice":               {built(`{"t":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"t":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}`, eight), "", `key "t" twice`},
		"tensor twice, escaped":      {built(`{"t":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"\u0074":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}`, eight), "", `key "t" twice`},
		"shape twice":                {built(`{"t":{"dtype":"U8","shape":[8],"shape":[8],"data_offsets":[0,8]}}`, eight), "t", `key "shape" twice`},
		"metadata of numbers":        {built(`{"__metadata__":{"format":1}}`, nil), "", "where a string belongs"},
		"metadata is a list":         {built(`{"__metadata__":[]}`, nil), "", "where { belongs"},
		"tensor is null":             {built(`{"t":null}`, nil), "t", "null where { belongs"},
		"tensor is a list":           {built(`{"t":[]}`, nil), "t", "[ where { belongs"},
		"no dtype":                   {built(`{"t":{"shape":[8],"data_offsets":[0,8]}}`, eight), "t", "only 2 of them"},
		"DTYPE in capitals":          {built(`{"t":{"DTYPE":"U8","shape":[8],"data_offsets":[0,8]}}`, eight), "t", "only 2 of them"},
		"shape is null":              {built(one("U8", "null", "[0,8]"), eight), "t", "null where [ belongs"},
		"dimension is null":          {built(one("U8", "[null]", "[0,8]"), eight), "t", "null where a number belongs"},
		"dimension is a string":      {built(one("U8", `["8"]`, "[0,8]"), eight), "t", `"8" where a number belongs`},
		"dimension is a list":        {built(one("U8", "[[8]]", "[0,8]"), eight), "t", "[ where a number belongs"},
		"dimension -8":               {built(one("U8", "[-8]", "[0,8]"), eight), "t", "dimension -8"},
		"dimension 8.0":              {built(one("U8", "[8.0]", "[0,8]"), eight), "t", "dimension 8.0"},
		"dimension 8e0":              {built(one("U8", "[8e0]", "[0,8]"), eight), "t", "dimension 8e0"},
		"dimension 2^64":             {built(one("U8", "[18446744073709551616]", "[0,8]"), eight), "t", "dimension 18446744073709551616"},
		"dimension of 10^6 digits":   {built(one("U8", "["+strings.Repeat("9", 1e6)+"]", "[0,8]"), eight), "t", "dimension 999"},
		"dimension 2^60 of F64":      {built(one("F64", "[1152921504606846976]", "[0,8]"), eight), "t", "below 2^63"},
		"2^32 x 2^32 elements":       {built(one("U8", "[4294967296,4294967296]", "[0,8]"), eight), "t", "below 2^63"},
		"2^32 x 2^32 x 0 elements":   {built(one("U8", "[4294967296,4294967296,0]", "[0,0]"), nil), "t", "below 2^63"},
		"17 dimensions":              {built(one("U8", "["+strings.Repeat("1,", 16)+"8]", "[0,8]"), eight), "t", "more than 16 numbers"},
		"half a byte":                {built(one("F4", "[15]", "[0,8]"), eight), "t", "whole number of bytes"},
		"too few bytes for shape":    {built(one("F32", "[3]", "[0,8]"), eight), "t", "expected 12 bytes of F32 [3], got 8 bytes"},
		"too many bytes for shape":   {built(one("F32", "[]", "[0,8]"), eight), "t", "expected 4 bytes of F32 [], got 8 bytes"},
		"unsupported type misfits":   {built(one("F8_E4M3", "[7]", "[0,8]"), eight), "t", "expected 7 bytes"},
		"offsets swapped":            {built(one("U8", "[8]", "[8,0]"), eight), "t", "[8, 0]"},
		"offset -1":                  {built(one("U8", "[8]", "[-1,7]"), eight), "t", "offset -1"},
		"offset 2^63":                {built(one("U8", "[8]", "[0,9223372036854775808]"), eight), "t", "offset 9223372036854775808"},
		"offsets near 2^63":          {built(one("U8", "[8]", "[9223372036854775799,9223372036854775807]"), eight), "t", "expected data from byte 0"},
		"one offset":                 {built(one("U8", "[8]", "[8]"), eight), "t", "1 offsets"},
		"three offsets":              {built(one("U8", "[8]", "[0,8,9]"), eight), "t", "more than 2 numbers"},
		"outside the file":           {built(one("U8", "[16]", "[0,16]"), eight), "t", "a file with 8 bytes of data"},
		"data does not start at 0":   {built(one("U8", "[4]", "[4,8]"), eight), "t", "expected data from byte 0"},
		"overlap":                    {built(two("[0,4]", "[2,6]"), eight), "u", "expected data from byte 4, where t ends"},
		"the same bytes twice":       {built(two("[0,4]", "[0,4]"), eight[:4]), "u", "expected data from byte 4"},
		"gap":                        {built(two("[0,4]", "[5,9]"), append(eight, 0)), "u", "expected data from byte 4"},
		"ten million brackets":       {built(`{"t":{"x":`+strings.Repeat("[", 1e7), nil), "t", "exceeded max depth"},
		"a name of a million bytes":  {built(`{"`+strings.Repeat("n", 1e6)+`":1}`, nil), strings.Repeat("n", 1e6), "where { belongs"},
		"newline in a name":          {built("{\"a\nb\":1}", nil), "", "invalid character"},
		"bytes but no tensor at all": {built("{}", eight), "", "expected 0 bytes of data"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, t.TempDir(), "m.safetensors", c.file)
			s, err := OpenFile(path)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("set %v, error %v, want an Error", s, err)
			}
			if e.File != path || e.Tensor != c.tensor || !strings.Contains(err.Error(), c.text) || e.Expected == "" {
				t.Errorf("error %q (tensor %q), want %q of tensor %q", err, shorten(e.Tensor), c.text, shorten(c.tensor))
			}
			if len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestOpenFileRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"loop": "loop", "dangling": "nowhere", "null": os.DevNull} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{
		"loop": "too many levels", "dangling": "nothing", "null": "a special file", "folder": "a folder", "absent": "nothing", "folder/absent": "nothing",
	} {
		path := filepath.Join(dir, name)
		_, err := OpenFile(path)
		var e *Error
		if !errors.As(err, &e) || e.File != path || !strings.Contains(e.Got, got) {
			t.Errorf("%s: %v, want an Error with %q", name, err, got)
		}
	}
}

func TestOpenFileFollowsLinks(t *testing.T) { // as the cache of the hub is made of
	dir := t.TempDir()
	write(t, dir, "blob", bytesFile(map[string][]byte{"a": {1}}))
	if err := os.Mkdir(filepath.Join(dir, "snapshot"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "snapshot", "model.safetensors")
	if err := os.Symlink("../blob", path); err != nil {
		t.Skip(err)
	}
	s, err := OpenDir(filepath.Dir(path), Transformers())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Where("a") != path {
		t.Errorf("Where %q", s.Where("a"))
	}
}

func TestRealFiles(t *testing.T) {
	patterns := []string{"models/starter/*/*.safetensors", "testdata/golden/*/*.safetensors", "testdata/golden/*/*/*.safetensors", "../shared/assets/*/*.safetensors", "../shared/assets/*/*/*.safetensors"}
	files := 0
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(repo, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasPrefix(path, formats) {
				continue // damaged ones among them, see TestFormats
			}
			files++
			s, err := OpenFile(path)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, name := range s.Names() {
				dtype, shape, _ := s.Info(name)
				data, err := s.Data(name)
				if err != nil {
					t.Error(err)
				}
				if dtype != tensor.Invalid {
					if err := (tensor.Tensor{DType: dtype, Shape: shape, Data: data}).Validate(); err != nil {
						t.Errorf("%s: %s: %v", path, name, err)
					}
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if files < 20 {
		t.Errorf("only %d files found", files)
	}
}
