package torchfile

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Pieces of pickles.
const (
	emptyDict, emptyList, emptyTuple = "}", "]", ")"
	mark, stop, none, pop            = "(", ".", "N", "0"
	memoize, put0, get0              = "\x94", "q\x00", "h\x00"
	reduce, persistent, setItem      = "R", "Q", "s"
)

func text(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func class(module, name string) string { return "c" + module + "\n" + name + "\n" }

// pickledTensor is one of two floats in the storage of that key.
func pickledTensor(key string) string {
	id := mark + text("storage") + class("torch", "FloatStorage") + text(key) + text("cpu") + "K\x02t" + persistent
	return class("torch._utils", "_rebuild_tensor_v2") + mark + id + "K\x00K\x02\x85K\x01\x85\x89N" + "t" + reduce
}

// zipped is a torch file with that pickle, and records beside it.
func zipped(t testing.TB, pickle string, method uint16, records map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	add := func(name, content string, method uint16) {
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	add("a/data.pkl", pickle, method)
	for name, content := range records {
		add(name, content, zip.Store)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestGreedyFiles: whatever a file asks for in all, it gets little memory and little time.
func TestGreedyFiles(t *testing.T) {
	const protocol = "\x80\x02"
	long := strings.Repeat("n", maxText)
	tensor := func(key string) map[string]string {
		return map[string]string{"a/data/" + key: strings.Repeat("\x00", 8)}
	}
	for name, c := range map[string]struct {
		pickle  string
		records map[string]string
		text    string // of the error
	}{
		"four million dicts":          {strings.Repeat(emptyDict, maxOps), nil, "at most 96 MiB"},
		"four million operations":     {strings.Repeat(none+pop, maxOps), nil, "at most 4000000 operations"},
		"marks":                       {strings.Repeat(mark, maxOps), nil, "at most"},
		"memo":                        {none + strings.Repeat(memoize, maxOps), nil, "at most 96 MiB"},
		"tuples of one list":          {emptyList + put0 + strings.Repeat(get0+"\x85", maxOps/2), nil, "at most 96 MiB"},
		"long texts":                  {strings.Repeat(text(long)+memoize, 900), nil, "got"},
		"a text that is passed over":  {text(strings.Repeat("n", maxPickle-100)) + stop, nil, "a plain value without tensors"},
		"names that grow":             {strings.Repeat(emptyDict+text(long[:maxName/2]), 3) + pickledTensor("0") + strings.Repeat(setItem, 3) + stop, tensor("0"), "names of at most 4096 bytes"},
		"long names of many tensors":  {emptyDict + text(long[:3000]) + emptyDict + mark + names(40_000) + "u" + setItem + stop, tensor("0"), "at most 96 MiB"},
		"a class of many dots":        {text(strings.Repeat("a.", maxText/2)) + text("b") + strings.Repeat("\x93", 1), nil, "names of at most 256 bytes"},
		"a class again and again":     {text("a") + put0 + pop + strings.Repeat(get0+get0+"\x93"+pop, maxOps/4), nil, "at most"},
		"a long key":                  {strings.Replace(pickledTensor("0"), text("0"), text(long), 1) + stop, nil, "key"},
		"a storage again and again":   {mark + text("storage") + class("torch", "FloatStorage") + text("0") + text("cpu") + "K\x02t" + put0 + strings.Repeat(get0+persistent+pop, maxOps/3), tensor("0"), "at most"},
		"pairs again and again":       {mark + strings.Repeat(none+none+"\x86", 100_000) + "l" + "\x85" + put0 + strings.Repeat(class("collections", "OrderedDict")+get0+reduce, 100_000), nil, "at most 96 MiB"},
		"a tuple of texts as keys":    {text(long) + put0 + pop + mark + strings.Repeat(get0, 10_000) + "tq\x01" + emptyDict + strings.Repeat("h\x01"+none+setItem, maxOps/3), nil, "at most"},
		"values in one another":       {strings.Repeat(emptyList, 100_000) + strings.Repeat("a", 99_999) + stop, nil, "at most 200 deep"},
		"a tensor of a tensor of ...": {strings.Repeat(class("torch._tensor", "_rebuild_from_type_v2")+mark+class("torch._tensor", "_rebuild_from_type_v2")+none, 10_000) + emptyTuple + strings.Repeat("t"+reduce, 10_000) + stop, nil, "a tensor with attributes"},
	} {
		for _, method := range []uint16{zip.Store, zip.Deflate} {
			t.Run(fmt.Sprint(name, method), func(t *testing.T) {
				data := zipped(t, protocol+c.pickle, method, c.records)
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				start := time.Now()
				f, err := Open(bytes.NewReader(data), int64(len(data)))
				took := time.Since(start)
				runtime.ReadMemStats(&after)
				if err == nil {
					t.Fatalf("opened with %d tensors", len(f.Tensors))
				}
				checkError(t, err)
				if bombs := method == zip.Deflate && strings.Contains(err.Error(), "a 64th"); !bombs && !strings.Contains(err.Error(), c.text) {
					t.Errorf("%v, want %q", err, c.text)
				}
				// All that was ever allocated, garbage too, such as the stack before it grew.
				if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 500<<20 || took > 5*time.Second {
					t.Errorf("%d MiB allocated, %v", bytes>>20, took)
				}
			})
		}
	}
}

// names are n tensors of one storage for a dict.
func names(n int) string {
	var out strings.Builder
	out.WriteString(text("first") + pickledTensor("0") + put0)
	for i := range n {
		out.WriteString(text(fmt.Sprint(i)) + get0)
	}
	return out.String()
}

// TestManyRecords has a directory that is too long, and one that is just not.
func TestManyRecords(t *testing.T) {
	for _, n := range []int{1000, maxDirectory/60 + 1000} {
		var out bytes.Buffer
		w := zip.NewWriter(&out)
		for i := range n {
			if _, err := w.CreateRaw(&zip.FileHeader{Name: fmt.Sprintf("a/data/%09d", i)}); err != nil {
				t.Fatal(err)
			}
		}
		pickle := "\x80\x02" + emptyDict + stop
		f, err := w.CreateRaw(&zip.FileHeader{Name: "a/data.pkl", CRC32: crc32.ChecksumIEEE([]byte(pickle)), CompressedSize64: uint64(len(pickle)), UncompressedSize64: uint64(len(pickle))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(pickle)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = Open(bytes.NewReader(out.Bytes()), int64(out.Len()))
		if want := map[bool]string{true: "a dict without tensors", false: "a zip's directory of at most"}[n == 1000]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d records: %v, want %q", n, err, want)
		}
	}
}
