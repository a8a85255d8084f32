package weights

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/triptych-serving/triptych/engine/tensor"
)

const (
	// maxHeader is the reference implementation's bound on the JSON of a file, in bytes.
	maxHeader = 100_000_000
	// maxRank bounds the dimensions of a tensor; real ones have at most 5.
	maxRank = 16
	// metadataKey is the one key of a header that is not a tensor.
	metadataKey = "__metadata__"
)

// entry is one tensor of a header: its type by safetensors' name for it, its shape, and its bytes
// [begin, end) in the data that follows the header.
type entry struct {
	name       string
	dtype      string
	shape      tensor.Shape
	begin, end int64
	gathered   *gathered // nil if they lie there as they are read; else begin is 0
}

// bitsPerElement knows every type of the format, read by this project or not, so that sizes can
// be checked. A type of a later version of the format is 0.
func bitsPerElement(dtype string) int64 {
	switch dtype {
	case "F4":
		return 4
	case "F6_E2M3", "F6_E3M2":
		return 6
	case "BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ":
		return 8
	case "U16", "I16", "F16", "BF16":
		return 16
	case "U32", "I32", "F32":
		return 32
	case "U64", "I64", "F64", "C64":
		return 64
	}
	return 0
}

// noData is the data length of a file that ends behind its header: one that a model is planned from before
// its weights are there.
const noData = -1

// parseHeader reads the JSON of a header whose data has dataLen bytes, or noData. The tensors come in the
// order of their data, which they cover without gaps, overlaps or a rest. Errors lack the file.
func parseHeader(header []byte, dataLen int64) (entries []entry, metadata map[string]string, _ *Error) {
	metadata = map[string]string{}
	var broken *Error // the tensor at fault, when it is known
	err := scanObject(header, func(s scanner, key string) error {
		if key == metadataKey {
			return s.object(func(s scanner, key string) (err error) {
				metadata[key], err = s.string()
				return err
			})
		}
		e, err := scanEntry(s, key)
		if err != nil {
			broken = &Error{Tensor: key, Expected: "an object with dtype, shape and data_offsets", Got: err.Error(), Err: err}
			return err
		}
		entries = append(entries, e)
		return nil
	})
	switch {
	case broken != nil:
		return nil, nil, broken
	case err != nil:
		return nil, nil, &Error{Expected: "a header that is a JSON object of tensors", Got: err.Error(), Err: err}
	}
	return entries, metadata, checkLayout(entries, dataLen)
}

func scanEntry(s scanner, name string) (entry, error) {
	e := entry{name: name}
	seen := 0
	err := s.object(func(s scanner, key string) (err error) {
		var list []json.Number
		switch key {
		case "dtype":
			seen++
			e.dtype, err = s.string()
		case "shape":
			seen++
			if list, err = s.numbers(maxRank); err == nil {
				e.shape, err = parseShape(list)
			}
		case "data_offsets":
			seen++
			if list, err = s.numbers(2); err == nil {
				e.begin, e.end, err = parseOffsets(list)
			}
		default:
			err = s.skip()
		}
		return err
	})
	if err == nil && seen != 3 {
		err = fmt.Errorf("only %d of them", seen)
	}
	return e, err
}

func parseShape(list []json.Number) (tensor.Shape, error) {
	shape := make(tensor.Shape, len(list))
	for i, n := range list {
		d, err := strconv.ParseUint(n.String(), 10, strconv.IntSize-1)
		if err != nil {
			return nil, fmt.Errorf("dimension %s", shorten(n.String()))
		}
		shape[i] = int(d)
	}
	return shape, nil
}

func parseOffsets(list []json.Number) (begin, end int64, err error) {
	if len(list) != 2 {
		return 0, 0, fmt.Errorf("%d offsets", len(list))
	}
	var offsets [2]int64
	for i, n := range list {
		u, err := strconv.ParseUint(n.String(), 10, 63)
		if err != nil {
			return 0, 0, fmt.Errorf("offset %s", shorten(n.String()))
		}
		offsets[i] = int64(u)
	}
	return offsets[0], offsets[1], nil
}

// checkLayout sorts the entries by their data and refuses all but an exact cover of it.
func checkLayout(entries []entry, dataLen int64) *Error {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.name, b.name))
	})
	covered, last := int64(0), "the header"
	for i := range entries {
		e := &entries[i]
		if err := e.check(); err != nil {
			return err
		}
		if e.begin != covered {
			return e.fault(fmt.Sprintf("data from byte %d, where %s ends", covered, shorten(last)), e.offsets())
		}
		if dataLen != noData && e.end > dataLen {
			return e.fault(fmt.Sprintf("data up to byte %d", e.end), fmt.Sprintf("a file with %d bytes of data, at least %d are missing", dataLen, e.end-dataLen))
		}
		covered, last = e.end, e.name
	}
	if dataLen != noData && covered != dataLen {
		return &Error{Expected: fmt.Sprintf("%d bytes of data, as the header says", covered), Got: fmt.Sprintf("%d bytes", dataLen)}
	}
	return nil
}

// check compares the offsets of a tensor with its type and shape.
func (e *entry) check() *Error {
	if e.end < e.begin {
		return e.fault("data_offsets in order", e.offsets())
	}
	want, ok := e.storedBytes()
	if !ok {
		return e.fault("a whole number of bytes below 2^63", e.dtype+" "+e.shape.String())
	}
	if want >= 0 && want != e.end-e.begin {
		return e.fault(fmt.Sprintf("%d bytes of %s %v", want, e.dtype, e.shape), fmt.Sprintf("%d bytes, %s", e.end-e.begin, e.offsets()))
	}
	return nil
}

func (e *entry) fault(expected, got string) *Error {
	return &Error{Tensor: e.name, Expected: expected, Got: got}
}

func (e *entry) offsets() string { return fmt.Sprintf("data_offsets [%d, %d]", e.begin, e.end) }

// storedBytes is what type and shape ask for, -1 when the type is not known. ok is false when that
// is not a whole number of bytes or overflows.
func (e *entry) storedBytes() (n int64, ok bool) {
	elems, ok := e.shape.Elems()
	bits := bitsPerElement(e.dtype)
	switch {
	case !ok:
		return 0, false
	case bits == 0:
		return -1, true
	case int64(elems) > math.MaxInt64/bits || int64(elems)*bits%8 != 0:
		return 0, false
	}
	return int64(elems) * bits / 8, true
}
