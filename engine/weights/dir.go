package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxIndex bounds an index file, in bytes; that of a model with 1,000 tensors has about 120 KB.
const maxIndex = 16 << 20

const extension = ".safetensors"

// OpenDir opens the weights in a folder: for one of the stems ("model",
// "diffusion_pytorch_model") STEM.safetensors, or the files that STEM.safetensors.index.json
// lists. Their fp16 variants are opened when there is nothing else. Errors are an Error.
func OpenDir(dir string, stems ...string) (*Set, error) {
	names := candidates(stems)
	for _, name := range names {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err != nil {
			continue // if the folder itself is at fault, describe says so
		}
		if strings.HasSuffix(name, ".json") {
			return openIndex(path)
		}
		return OpenFile(path)
	}
	got, err := describe(dir)
	return nil, &Error{File: dir, Expected: "one of " + strings.Join(names, ", "), Got: got, Err: err}
}

// candidates lists the names weights may have, the preferred ones first.
func candidates(stems []string) []string {
	var plain, variants []string
	for _, stem := range stems {
		plain = append(plain, stem+extension, stem+extension+".index.json")
		variants = append(variants, stem+".fp16"+extension, stem+extension+".index.fp16.json")
	}
	return append(plain, variants...)
}

// describe says what a folder without weights has instead.
func describe(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "no folder", err
	} else if err != nil {
		return reason(err), err
	}
	var pickled, others []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".bin", ".pt", ".pth", ".ckpt":
			pickled = append(pickled, e.Name())
		case extension:
			others = append(others, e.Name())
		}
	}
	switch {
	case len(others) > 0:
		return strings.Join(others, ", "), nil
	case len(pickled) > 0:
		return "pickled weights only (" + strings.Join(pickled, ", ") + "), which are not read because they can run code: convert them to safetensors", nil
	}
	return "none of them", nil
}

// openIndex opens every file an index lists, and checks that each has the tensors the index says.
func openIndex(path string) (*Set, error) {
	shards, _, err := readIndex(path)
	if err != nil {
		return nil, err
	}
	s := &Set{home: path, owners: map[string]*file{}}
	if err := s.addShards(filepath.Dir(path), shards); err != nil {
		_ = s.Close() // read-only, and the first error says more
		return nil, err
	}
	return s, nil
}

// addShards opens the files that tensors are mapped to.
func (s *Set) addShards(dir string, shards map[string]string) error {
	for _, shard := range slices.Compact(slices.Sorted(maps.Values(shards))) {
		if err := s.add(filepath.Join(dir, shard)); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shards)) {
		path := filepath.Join(dir, shards[name])
		if f := s.owners[name]; f == nil {
			return &Error{File: path, Tensor: name, Expected: "the tensor, as " + s.home + " says", Got: "no such tensor"}
		} else if f.path != path {
			return &Error{File: path, Tensor: name, Expected: "the tensor, as " + s.home + " says", Got: "it in " + f.path}
		}
	}
	return nil
}

// readIndex gives the file of each tensor: a name in the folder of the index; and the bytes of all tensors, 0 if the
// index does not tell.
func readIndex(path string) (shards map[string]string, total int64, err error) {
	data, err := readSmall(path)
	if err != nil {
		return nil, 0, err
	}
	const expected = "an index: a JSON object with a weight_map from tensors to files"
	var broken *Error // the tensor at fault, when it is known
	err = scanObject(data, func(s scanner, key string) error {
		if key == "metadata" {
			total, err = s.totalSize()
			return err
		}
		if key != "weight_map" {
			return s.skip()
		}
		shards = map[string]string{}
		return s.object(func(s scanner, name string) error {
			shard, err := s.string()
			if err != nil {
				return err
			}
			if !isShardName(shard) {
				broken = &Error{File: path, Tensor: name, Expected: "the name of a " + extension + " file in the same folder", Got: fmt.Sprintf("%q", shard)}
				return broken
			}
			shards[name] = shard
			return nil
		})
	})
	switch {
	case broken != nil:
		return nil, 0, broken
	case err != nil:
		return nil, 0, &Error{File: path, Expected: expected, Got: err.Error(), Err: err}
	case len(shards) == 0:
		return nil, 0, &Error{File: path, Expected: expected, Got: "no weight_map or an empty one"}
	}
	return shards, total, nil
}

// totalSize reads the metadata of an index for its total_size; 0 if that is no number of bytes.
func (s scanner) totalSize() (int64, error) {
	var metadata json.RawMessage
	if err := s.dec.Decode(&metadata); err != nil {
		return 0, cutShort(err)
	}
	var known struct {
		TotalSize json.Number `json:"total_size"`
	}
	if json.Unmarshal(metadata, &known) != nil { // nothing that is loaded depends on it
		return 0, nil
	}
	n, err := known.TotalSize.Float64() // some tools write 4.0e9
	if err != nil || n < 0 || n > 1<<53 {
		return 0, nil
	}
	return int64(n), nil
}

// isShardName tells whether a file of that name is in the same folder.
func isShardName(name string) bool {
	return filepath.IsLocal(name) && !strings.ContainsAny(name, `/\`) && strings.HasSuffix(name, extension)
}

// readSmall reads a regular file of at most maxIndex bytes.
func readSmall(path string) ([]byte, error) {
	expected := fmt.Sprintf("an index file of at most %d bytes", maxIndex)
	f, size, err := openRegular(path, expected)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return nil, &Error{File: path, Expected: expected, Got: reason(err), Err: err}
	}
	if len(data) > maxIndex {
		return nil, &Error{File: path, Expected: expected, Got: fmt.Sprintf("%d bytes", size)}
	}
	return data, nil
}
