// Package torchfile finds the tensors in a file that torch.save wrote: a zip archive (torch 1.6 and later) or the older layout of
// pickles with storages behind them. Pickles are interpreted, and nothing that they name is looked up or called: known
// constructors of tensors are built as plain data, objects of other classes are kept closed, and a name that has no business in
// weights refuses the file, whether it is used or not.
//
// Every length is compared with what is there before anything is allocated for it, and what a file may ask for in all is bounded.
//
// The package may import engine/tensor only.
package torchfile

import (
	"fmt"
	"io"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// What a file may ask for.
const (
	maxPickle  = 64 << 20  // bytes of all its pickles
	maxOps     = 4_000_000 // opcodes
	maxMemory  = 96 << 20  // bytes of the values that are built of them, by estimate
	maxText    = 64 << 10  // bytes of a text that is kept; longer ones are no name of anything
	maxDepth   = 200       // values in one another
	maxRank    = 16        // dimensions of a tensor
	maxGrowth  = 1 << 20   // values of a tensor that is larger than its storage
	maxName    = 4 << 10   // bytes of a tensor's name
	maxClass   = 256       // bytes of a class's name, of its module's, and of a storage's key
	maxInflate = 64 << 20  // bytes of all records that are compressed
)

// File is the tensors of a file and where their bytes are.
type File struct {
	Tensors   []Tensor // each name once
	BigEndian bool     // values have their highest byte first

	records []*record // that storages are in, in the order of the file; none in the older layout
}

// Tensor is a view of a storage.
type Tensor struct {
	Name    string // keys of nested dicts, joined by dots; "tensor" if the file is one and no dict
	DType   string // by safetensors' name
	Shape   tensor.Shape
	Strides []int64 // in values
	Data    Bytes   // those of its storage from the first value on
}

// Bytes are those of a storage that tensors look at.
type Bytes struct {
	Offset int64       // in the file, or in Memory
	Size   int64       // up to the end of the storage
	Memory io.ReaderAt // of a record that was compressed; nil if the bytes are the file's
}

// Error is why a file is refused.
type Error struct {
	Tensor   string // empty when the fault is not in one tensor
	Expected string
	Got      string
	Err      error // the cause, if it has one
}

// Error reads "expected X, got Y".
func (e *Error) Error() string { return fmt.Sprintf("expected %s, got %s", e.Expected, e.Got) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

func refuse(expected, got string) error { return &Error{Expected: expected, Got: got} }

// IsZip tells whether a file that begins so is of the newer layout.
func IsZip(begin []byte) bool { return len(begin) >= 4 && string(begin[:4]) == localSignature }

// IsLegacy tells whether a file that begins so is of the older layout: a pickle of protocol 2 to 5.
func IsLegacy(begin []byte) bool {
	return len(begin) >= 2 && begin[0] == opProto && begin[1] >= 2 && begin[1] <= 5
}

// Open finds the tensors in a file of so many bytes that IsZip or IsLegacy. It reads the pickles, and of the storages
// nothing but those that are compressed. Errors are an Error.
func Open(file io.ReaderAt, size int64) (*File, error) {
	var begin [4]byte
	if n, err := file.ReadAt(begin[:], 0); n < len(begin) {
		return nil, &Error{Expected: "a torch file", Got: fmt.Sprintf("%d bytes", size), Err: err}
	}
	if IsZip(begin[:]) {
		return openZip(file, size)
	}
	return openLegacy(file, size)
}

// itemBytes are the bytes of a value, 0 for a type that is not known.
func itemBytes(dtype string) int64 {
	switch dtype {
	case "BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2":
		return 1
	case "F16", "BF16", "I16", "U16":
		return 2
	case "F32", "I32", "U32":
		return 4
	case "F64", "I64", "U64":
		return 8
	}
	return 0
}

// ofStorage is the type of values in a storage by the name of its class, without Storage.
func ofStorage(class string) string {
	return map[string]string{
		"Float": "F32", "Double": "F64", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32", "Short": "I16", "Char": "I8",
		"Byte": "U8", "Bool": "BOOL",
	}[class]
}

// ofDType is the same of torch's data types, which the newest files have with each tensor.
func ofDType(name string) string {
	return map[string]string{
		"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
		"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
		"bool": "BOOL",
	}[name]
}
