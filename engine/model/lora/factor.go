package lora

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// Alphas are the factors that stand beside tensors, as peft writes them: adapter_config.json of a part, or the metadata of a file.
type Alphas map[Part]Config

// Config is what peft's adapter_config.json says of factors. A pattern is for a layer whose path is its key or ends with it.
type Config struct {
	Alpha   *float64           `json:"lora_alpha"`
	Stable  bool               `json:"use_rslora"` // alpha / sqrt(r)
	Pattern map[string]float64 `json:"alpha_pattern"`
	DoRA    bool               `json:"use_dora"`
}

// maxConfig bounds what stands beside tensors, in bytes.
const maxConfig = 4 << 20

// ParseConfig reads an adapter_config.json. The error is an Error.
func ParseConfig(data []byte) (c Config, err error) {
	if len(data) > maxConfig {
		return c, &Error{Expected: fmt.Sprintf("an adapter_config.json of at most %d bytes", maxConfig), Got: fmt.Sprintf("%d bytes", len(data))}
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, &Error{Expected: "an adapter_config.json of peft", Got: "another JSON text", Err: err}
	}
	return c, c.check()
}

func (c Config) check() error {
	if c.DoRA {
		return &Error{Expected: accepted, Got: strangerDoRA}
	}
	numbers := slices.Collect(maps.Values(c.Pattern))
	if c.Alpha != nil {
		numbers = append(numbers, *c.Alpha)
	}
	for _, n := range numbers {
		if math.IsNaN(n) || math.IsInf(n, 0) {
			return &Error{Expected: "finite alphas", Got: fmt.Sprint(n)}
		}
	}
	return nil
}

// metadata is the key under which diffusers writes what peft has in a file of its own.
const metadata = "lora_adapter_metadata"

// ParseMetadata reads the factors that a file's metadata has. The error is an Error.
func ParseMetadata(all map[string]string) (Alphas, error) {
	text, ok := all[metadata]
	if !ok {
		return nil, nil
	}
	var flat map[string]json.RawMessage
	if len(text) > maxConfig || json.Unmarshal([]byte(text), &flat) != nil {
		return nil, &Error{Expected: "a JSON object in the metadata " + metadata, Got: fmt.Sprintf("%.40q", text)}
	}
	nested := map[Part]map[string]json.RawMessage{}
	for key, value := range flat {
		part, rest, _ := strings.Cut(key, ".")
		if nested[Part(part)] == nil {
			nested[Part(part)] = map[string]json.RawMessage{}
		}
		nested[Part(part)][rest] = value
	}
	out := Alphas{}
	for part, fields := range nested {
		data, err := json.Marshal(fields)
		if err != nil {
			return nil, err
		}
		if out[part], err = ParseConfig(data); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// of is the factor of a layer of a rank; 1 where nothing is said.
func (c Config) of(path string, rank int) float64 {
	alpha := c.Alpha
	for _, key := range slices.Sorted(maps.Keys(c.Pattern)) {
		if path == key || strings.HasSuffix(path, "."+key) {
			v := c.Pattern[key]
			alpha = &v
			break
		}
	}
	switch {
	case alpha == nil:
		return 1
	case c.Stable:
		return *alpha / math.Sqrt(float64(rank))
	}
	return *alpha / float64(rank)
}

// factor reads what a layer's difference is multiplied by.
func (l *Layer) factor(src Source, part Part, a Alphas) error {
	l.Factor = 1
	rank := l.rank(src)
	if rank == 0 {
		return nil
	}
	name := l.tensors[alpha]
	if name == "" {
		l.Factor = a[part].of(l.path, rank)
		return nil
	}
	v, err := number(src, name)
	if err != nil {
		return err
	}
	l.Factor = v / float64(rank)
	return nil
}

// rank is what alpha is divided by, 0 where there is no such number.
func (l *Layer) rank(src Source) int {
	for _, r := range []role{down, hadaFirst + 1, kronSecond + 2, kronFirst + 2} {
		if l.has(r) {
			_, shape, _ := src.Info(l.tensors[r])
			return shape[0]
		}
	}
	return 0
}

// number reads a tensor of one number; 1 of a file without data. The error is an Error, or that of reading.
func number(src Source, name string) (float64, error) {
	_, shape, _ := src.Info(name)
	if n, ok := shape.Elems(); !ok || n != 1 {
		return 0, &Error{Tensor: name, Expected: "one number", Got: shape.String()}
	}
	if !src.Complete() {
		return 1, nil
	}
	data, err := src.Data(name)
	if err != nil {
		return 0, err
	}
	dtype, _, _ := src.Info(name)
	if dtype.IsFloat() {
		v, err := tensor.Tensor{DType: dtype, Shape: tensor.Shape{1}, Data: data}.Float32s()
		if err != nil {
			return 0, &Error{Tensor: name, Expected: "one number", Got: src.TypeName(name)}
		}
		if x := float64(v[0]); !math.IsNaN(x) && !math.IsInf(x, 0) {
			return x, nil
		}
		return 0, &Error{Tensor: name, Expected: "a finite number", Got: fmt.Sprint(v[0])}
	}
	if kind := src.TypeName(name); strings.HasPrefix(kind, "I") || strings.HasPrefix(kind, "U") { // two's complement, little-endian
		bits, err := strconv.Atoi(kind[1:])
		if err == nil && len(data)*8 == bits && bits <= 64 {
			var v uint64
			for i := range data {
				v |= uint64(data[i]) << (8 * i)
			}
			if kind[0] == 'I' {
				return float64(int64(v<<(64-bits)) >> (64 - bits)), nil
			}
			return float64(v), nil
		}
	}
	return 0, &Error{Tensor: name, Expected: "a number of a floating point or integer type", Got: src.TypeName(name)}
}
