package torchfile

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// zoo are small torch files, good, damaged and hostile ones.
func zoo(t testing.TB) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, pattern := range []string{"torch/*", "hostile/*", "embeddings/*.pt", "embeddings/*.bin", "checkpoints/not-a-state-dict.ckpt"} {
		paths, err := filepath.Glob(filepath.Join("../../../testdata/golden/formats", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) < 64<<10 {
				files[path] = data
			}
		}
	}
	if len(files) < 50 {
		t.Fatalf("only %d files", len(files))
	}
	return files
}

// pickles are those in the zips of the zoo.
func pickles(t testing.TB) (all [][]byte) {
	t.Helper()
	for _, data := range zoo(t) {
		archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			continue
		}
		for _, f := range archive.File {
			if !strings.HasSuffix(f.Name, "data.pkl") || f.UncompressedSize64 > 64<<10 {
				continue
			}
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			pickled, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, pickled)
		}
	}
	return all
}

// checkError wants an Error that says something, and not without end.
func checkError(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Expected == "" || e.Got == "" {
		t.Errorf("%T %v", err, err)
	}
}

// checkTensors wants every value inside its storage, and that inside size bytes, or in memory.
func checkTensors(t *testing.T, tensors []Tensor, size int64) {
	t.Helper()
	names := map[string]bool{}
	for _, v := range tensors {
		elems, ok := v.Shape.Elems()
		item, last := itemBytes(v.DType), int64(0)
		for i, n := range v.Shape {
			last += int64(n-1) * v.Strides[i]
		}
		where := fmt.Sprintf("%q: %s %v, strides %v, data %+v", v.Name, v.DType, v.Shape, v.Strides, v.Data)
		if !ok || item == 0 || len(v.Strides) != len(v.Shape) || names[v.Name] || v.Name == "" {
			t.Error(where)
		}
		names[v.Name] = true
		if v.Data.Memory == nil && (v.Data.Offset < 0 || v.Data.Size < 0 || v.Data.Offset+v.Data.Size > size) {
			t.Errorf("%s: outside %d bytes", where, size)
		}
		if elems == 0 {
			continue
		}
		if last < 0 || (last+1)*item > v.Data.Size {
			t.Errorf("%s: outside its storage", where)
		}
		if v.Data.Memory != nil {
			if _, err := v.Data.Memory.ReadAt(make([]byte, item), v.Data.Offset+last*item); err != nil {
				t.Errorf("%s: %v", where, err)
			}
		}
	}
}

// FuzzPickle: whatever a pickle says, it is refused with an Error or its tensors lie inside their storages.
func FuzzPickle(f *testing.F) {
	for _, data := range pickles(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &machine{input: newInput(bytes.NewReader(data), int64(len(data)))}
		m.storage = func(class global, id []any) (*storage, error) {
			s, _, err := newStorage(class, id)
			if err != nil {
				return nil, err
			}
			n, ok := s.bytes()
			if !ok || n > 1<<20 {
				return nil, refuse("a storage of at most 1 MiB", "a larger one")
			}
			s.data = Bytes{Size: n}
			return s, nil
		}
		value, err := m.run()
		if err != nil {
			checkError(t, err)
			return
		}
		tensors, err := m.tensors(value)
		if err != nil {
			checkError(t, err)
			return
		}
		checkTensors(t, tensors, 1<<20)
	})
}

// FuzzZip and FuzzLegacy: whatever a file has, it is refused with an Error or its tensors lie inside it.
func FuzzZip(f *testing.F) { fuzzFile(f, IsZip, openZip) }

func FuzzLegacy(f *testing.F) { fuzzFile(f, IsLegacy, openLegacy) }

func fuzzFile(f *testing.F, is func([]byte) bool, open func(io.ReaderAt, int64) (*File, error)) {
	for _, data := range zoo(f) {
		if is(data) {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		size := int64(len(data))
		opened, err := open(bytes.NewReader(data), size)
		if err != nil {
			checkError(t, err)
			return
		}
		checkTensors(t, opened.Tensors, size)
		for _, v := range opened.Tensors {
			if err := opened.Verify(bytes.NewReader(data), v.Data.Offset); err != nil {
				checkError(t, err)
			}
		}
	})
}
