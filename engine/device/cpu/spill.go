package cpu

import (
	"os"
	"unsafe"

	"github.com/triptych-serving/triptych/engine/device"
)

// spill is a file without a name that holds the arrays of a banded run. Its pages are the operating
// system's to keep in memory or to write out, so that they are not in the ledger.
type spill struct {
	device string
	file   *os.File
	bytes  int64
}

// newSpill makes a file of so many zero bytes in dir and takes away its name at once, so that nothing is
// left of it however the process ends. The error is a device.SpillError.
func newSpill(name, dir string, bytes int64) (*spill, error) {
	s := &spill{device: name, bytes: bytes}
	file, err := os.CreateTemp(dir, "triptych-")
	if err != nil {
		return nil, s.failed(err)
	}
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close() // the first error says more
		return nil, s.failed(err)
	}
	if err := file.Truncate(bytes); err != nil {
		_ = file.Close()
		return nil, s.failed(err)
	}
	s.file = file
	return s, nil
}

// spillDir is where spill files are made if no option says: $TMPDIR, else /var/tmp, which unlike /tmp is
// not in memory on common systems, else the system's own.
func spillDir() string {
	const onDisk = "/var/tmp"
	if info, err := os.Stat(onDisk); os.Getenv("TMPDIR") == "" && err == nil && info.IsDir() {
		return onDisk
	}
	return os.TempDir()
}

func (s *spill) failed(err error) error {
	return &device.SpillError{Device: s.device, Bytes: s.bytes, Err: err}
}

// read fills v from a byte offset. The error is a device.SpillError.
func (s *spill) read(v []float32, at int64) error {
	if _, err := s.file.ReadAt(raw(v), at); err != nil {
		return s.failed(err)
	}
	return nil
}

// write puts v at a byte offset. The error is a device.SpillError.
func (s *spill) write(v []float32, at int64) error {
	if _, err := s.file.WriteAt(raw(v), at); err != nil {
		return s.failed(err)
	}
	return nil
}

// close gives the file's bytes back.
func (s *spill) close() { _ = s.file.Close() } // nothing is kept in it

// raw is the memory of v as bytes; the file is read by the process that wrote it.
func raw[T float32 | int32](v []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}
