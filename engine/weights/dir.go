package weights

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// maxIndex bounds an index file, in bytes; that of a model with 1,000 tensors has about 120 KB.
const maxIndex = 16 << 20

// OpenDir opens the weights in a folder by the names that a library gives them: one file, or those that an index lists.
// Where there is only a variant of them (diffusion_pytorch_model.fp16.safetensors), that is opened, see Set.Variant.
// Errors are an Error.
func OpenDir(dir string, naming Naming) (*Set, error) {
	f, got, err := naming.find(dir)
	if err == nil && f.path == "" {
		err = naming.missing(dir, got, nil)
	}
	if err != nil {
		return nil, err
	}
	s := &Set{home: f.path, variant: f.variant, owners: map[string]*file{}}
	if err := s.open(f); err != nil {
		_ = s.Close() // read-only, and the first error says more
		return nil, err
	}
	return s, nil
}

// open opens a file, or every file that an index lists, each of which must have the tensors the index says.
func (s *Set) open(f found) error {
	if !f.isIndex() {
		return s.add(f.path)
	}
	shards, _, err := readIndex(f.path)
	if err != nil {
		return err
	}
	return s.addShards(filepath.Dir(f.path), shards)
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
	ofShards := extension
	if strings.Contains(filepath.Base(path), pickled+".") {
		ofShards = pickled
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
			if !isShardName(shard, ofShards) {
				broken = &Error{File: path, Tensor: name, Expected: "the name of a " + ofShards + " file in the same folder", Got: fmt.Sprintf("%q", shard)}
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
func isShardName(name, extension string) bool {
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
