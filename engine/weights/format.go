package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/triptych-serving/triptych/engine/weights/torchfile"
)

// accepted is what files of tensors may be.
const accepted = "a safetensors file or one of torch.save"

// foreign are the beginnings of files that people take for weights.
var foreign = []struct{ begin, name string }{
	{"version https://git-lfs", "a pointer of git-lfs: run git lfs pull in the model's folder"},
	{"version ", "a pointer of git-lfs: run git lfs pull in the model's folder"},
	{"GGUF", "a GGUF file, whose quantized weights are not read"},
	{"\x89PNG\r\n", "a picture (PNG)"},
	{"\xff\xd8\xff", "a picture (JPEG)"},
	{"\x89HDF\r\n", "an HDF5 file, as Keras writes it"},
	{"\x1f\x8b", "a file compressed by gzip: unpack it first"},
	{"7z\xbc\xaf", "a 7z archive: unpack it first"},
	{"Rar!", "a RAR archive: unpack it first"},
	{"PK\x05\x06", "an empty zip"},
	{"\x93NUMPY", "an array of NumPy"},
}

// newFile opens size bytes of data by the first of them. Safetensors come first: the length that they begin with may look like
// the beginning of another format.
func newFile(path string, data io.ReaderAt, size int64, allowBare bool) (*file, error) {
	begin := make([]byte, min(size, 512))
	if n, err := data.ReadAt(begin, 0); n < len(begin) {
		return nil, &Error{File: path, Expected: accepted, Got: reason(err), Err: err}
	}
	isTorch := torchfile.IsZip(begin) || torchfile.IsLegacy(begin)
	switch name := nameForeign(begin); {
	case isSafetensors(begin, size):
	case isTorch && filepath.Ext(path) == extension:
		return nil, &Error{File: path, Expected: "a safetensors file, as its name says", Got: "one of torch.save, whose pickles are not what one trusts such a name for: call it .ckpt"}
	case isTorch:
		return newTorch(path, data, size)
	case name != "":
		return nil, &Error{File: path, Expected: accepted, Got: name}
	}
	if size < prefixLen {
		return nil, &Error{File: path, Expected: accepted + ", of at least 8 bytes", Got: fmt.Sprintf("%d bytes", size)}
	}
	return newSafetensors(path, data, size, allowBare)
}

// isSafetensors tells whether a header of a length that fits the file follows the length.
func isSafetensors(begin []byte, size int64) bool {
	if len(begin) <= prefixLen || begin[prefixLen] != '{' {
		return false
	}
	n := binary.LittleEndian.Uint64(begin)
	return 2 <= n && n <= uint64(size-prefixLen)
}

// nameForeign names what a file is if that is told by its beginning and is nothing with tensors.
func nameForeign(begin []byte) string {
	for _, f := range foreign {
		if bytes.HasPrefix(begin, []byte(f.begin)) {
			return f.name
		}
	}
	const tarMagic, tarFirst = 257, "sys_info\x00"
	switch text := strings.TrimLeft(strings.TrimPrefix(string(begin), "\ufeff"), " \t\r\n"); {
	case len(begin) > tarMagic+5 && string(begin[tarMagic:tarMagic+5]) == "ustar", strings.HasPrefix(string(begin), tarFirst):
		return "a tar archive, as torch 0.1 saved: load it with an old torch and save it again"
	case len(text) > 1 && text[0] == '<' && strings.ContainsRune("!?abcdefghijklmnopqrstuvwxyz", rune(text[1]|0x20)):
		return "a web page saved under the name of weights: the download needs a login"
	}
	return ""
}

// newTorch opens a file that torch.save wrote.
func newTorch(path string, data io.ReaderAt, size int64) (*file, error) {
	opened, err := torchfile.Open(data, size)
	if err != nil {
		broken := ofTorch(err)
		broken.File = path
		return nil, broken
	}
	f := &file{path: path, data: data, torch: opened, tensors: make(map[string]entry, len(opened.Tensors)), close: func() error { return nil }}
	for i := range opened.Tensors {
		t := &opened.Tensors[i]
		e := entry{name: t.Name, dtype: t.DType, shape: t.Shape}
		bytes, ok := e.storedBytes()
		if !ok || bytes < 0 {
			return nil, &Error{File: path, Tensor: t.Name, Expected: "a whole number of bytes below 2^63", Got: t.DType + " " + t.Shape.String()}
		}
		e.end = bytes
		if isWhole(t) && t.Data.Memory == nil && !opened.BigEndian {
			e.begin, e.end = t.Data.Offset, t.Data.Offset+bytes
		} else {
			e.gathered = newGathered(f, t, opened.BigEndian)
		}
		f.tensors[t.Name] = e
	}
	return f, nil
}

// ofTorch is the error of a torch file, without the file's name; nil if there is none.
func ofTorch(err error) *Error {
	var broken *torchfile.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken):
		return &Error{Tensor: broken.Tensor, Expected: broken.Expected, Got: broken.Got, Err: broken.Err}
	}
	return &Error{Expected: accepted, Got: err.Error(), Err: err}
}

// isWhole tells whether the values of a tensor lie one behind the other.
func isWhole(t *torchfile.Tensor) bool {
	step := int64(1)
	for i := len(t.Shape) - 1; i >= 0; i-- {
		if t.Shape[i] != 1 && t.Strides[i] != step {
			return false
		}
		step *= int64(t.Shape[i])
	}
	return true
}
