package weights

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// built is the bytes of a safetensors file.
func built(header string, data []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), data...)
}

// bytesFile is a file of U8 vectors.
func bytesFile(tensors map[string][]byte) []byte {
	header, data := map[string]any{"__metadata__": map[string]string{"format": "pt"}}, []byte(nil)
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		v := tensors[name]
		header[name] = map[string]any{"dtype": "U8", "shape": []int{len(v)}, "data_offsets": []int{len(data), len(data) + len(v)}}
		data = append(data, v...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	return built(string(text), data)
}

// write makes the file DIR/NAME and returns its path.
func write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// index is the text of an index file.
func index(t testing.TB, shards map[string]string) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{"metadata": map[string]int{"total_size": 1}, "weight_map": shards})
	if err != nil {
		t.Fatal(err)
	}
	return text
}
