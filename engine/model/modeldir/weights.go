package modeldir

// temporary until engine/weights exists
import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/triptych-serving/triptych/engine/tensor"
)

type tmpFile struct {
	path string
	data []byte
	idx  map[string]struct {
		DType   string
		Shape   []int
		Offsets [2]int `json:"data_offsets"`
	}
}

func (f *tmpFile) Info(n string) (tensor.DType, tensor.Shape, bool) {
	e, ok := f.idx[n]
	d, _ := tensor.ParseDType(e.DType)
	return d, tensor.Shape(e.Shape), ok
}
func (f *tmpFile) Where(string) string { return f.path }
func (f *tmpFile) Names() (out []string) {
	for k := range f.idx {
		out = append(out, k)
	}
	return
}
func (f *tmpFile) Data(n string) ([]byte, error) {
	e := f.idx[n]
	return f.data[e.Offsets[0]:e.Offsets[1]], nil
}
func (f *tmpFile) Close() error { return nil }

func openFile(path string) (*tmpFile, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(b)
	f := &tmpFile{path: path, data: b[8+n:]}
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(b[8:8+n], &raw); err != nil {
		return nil, err
	}
	delete(raw, "__metadata__")
	h, _ := json.Marshal(raw)
	return f, json.Unmarshal(h, &f.idx)
}

func openWeights(dir string) (weightFile, error) {
	m, _ := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	return openFile(m[0])
}
