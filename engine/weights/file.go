package weights

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/triptych-serving/triptych/engine/weights/torchfile"
)

// prefixLen is the bytes before the JSON: its length as a little-endian integer.
const prefixLen = 8

// file is one open file of tensors, all of whose header or pickles has been checked.
type file struct {
	path     string
	data     io.ReaderAt // the whole file
	start    int64       // where the tensors' bytes begin
	tensors  map[string]entry
	metadata map[string]string
	bare     bool // it ends behind its header though that has tensors
	close    func() error
	prints   *Prints         // of what is read; nil takes none
	torch    *torchfile.File // nil for safetensors
}

// openFile opens a file and checks its header against its size, which may be the header's alone if bare files
// are allowed.
func openFile(path string, allowBare bool) (*file, error) {
	f, size, err := openRegular(path, accepted)
	if err != nil {
		return nil, err
	}
	opened, err := newFile(path, f, size, allowBare)
	if err != nil {
		_ = f.Close() // read-only, and the first error says more
		return nil, err
	}
	opened.close = f.Close
	return opened, nil
}

// openRegular opens a regular file (or a link to one) and tells its size. expected is what an Error says
// was wanted.
func openRegular(path, expected string) (*os.File, int64, error) {
	fail := func(err error, got string) (*os.File, int64, error) {
		return nil, 0, &Error{File: path, Expected: expected, Got: got, Err: err}
	}
	info, err := os.Stat(path) // before opening, which would wait at a named pipe
	if err != nil {
		return fail(err, reason(err))
	}
	if !info.Mode().IsRegular() {
		return fail(nil, kind(info))
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err, reason(err))
	}
	if info, err = f.Stat(); err != nil {
		_ = f.Close() // read-only, and the first error says more
		return fail(err, reason(err))
	}
	return f, info.Size(), nil
}

// kind names what is there instead of a regular file.
func kind(info os.FileInfo) string {
	if info.IsDir() {
		return "a folder"
	}
	return "a special file (" + info.Mode().Type().String() + ")"
}

// newSafetensors checks the header of size bytes of data. Nothing is allocated for a length that the
// file does not have.
func newSafetensors(path string, data io.ReaderAt, size int64, allowBare bool) (*file, error) {
	fail := func(err error, expected, got string) (*file, error) {
		return nil, &Error{File: path, Expected: expected, Got: got, Err: err}
	}
	var prefix [prefixLen]byte
	if _, err := data.ReadAt(prefix[:], 0); err != nil {
		return fail(err, "a header length", reason(err))
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxHeader {
		return fail(nil, fmt.Sprintf("a safetensors header of at most %d bytes", maxHeader), fmt.Sprintf("length %d", n))
	}
	start := prefixLen + int64(n)
	if start > size {
		return fail(nil, fmt.Sprintf("a header of %d bytes", n), fmt.Sprintf("a file of %d bytes, at least %d are missing", size, start-size))
	}
	header := make([]byte, n)
	if _, err := data.ReadAt(header, prefixLen); err != nil {
		return fail(err, fmt.Sprintf("a header of %d bytes", n), reason(err))
	}
	stored := size - start
	if allowBare && stored == 0 {
		stored = noData
	}
	h, broken := recent.parse(header, stored)
	if broken != nil {
		broken.File = path
		return nil, broken
	}
	return &file{
		path: path, data: data, start: start, tensors: h.tensors, metadata: h.metadata,
		bare: stored == noData && len(h.tensors) > 0, close: func() error { return nil },
	}, nil
}

// ReadAt reads from the file as io.ReaderAt does. An error names the tensor that is at off.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.verify(off); err != nil {
		return 0, f.fault(off, err)
	}
	n, err := f.data.ReadAt(p, off)
	switch {
	case n < len(p):
		return n, f.fault(off, &Error{Expected: fmt.Sprintf("%d bytes at offset %d", len(p), off), Got: reason(err), Err: err})
	case f.prints != nil && !f.prints.check(f.path, off, p):
		return n, f.fault(off, changed(len(p), off))
	}
	return n, nil
}

// verify checks the part of a zip that is at off.
func (f *file) verify(off int64) *Error {
	if f.torch == nil {
		return nil
	}
	return ofTorch(f.torch.Verify(f.data, off))
}

func changed(n int, off int64) *Error {
	return &Error{Expected: fmt.Sprintf("the %d bytes at offset %d that were read before", n, off), Got: "others", Err: ErrChanged}
}

// fault completes an error with the file and the tensor that is at off.
func (f *file) fault(off int64, broken *Error) *Error {
	broken.File = f.path
	for name, e := range f.tensors {
		if at := off - f.start; e.gathered == nil && e.begin <= at && at < e.end {
			broken.Tensor = name
		}
	}
	return broken
}
