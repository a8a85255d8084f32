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
	s.file = file
	err = os.Remove(file.Name())
	if err == nil {
		err = file.Truncate(bytes)
	}
	if err != nil {
		err = s.failed(err)
		s.close()
		return nil, err
	}
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
	e := &device.SpillError{Device: s.device, Bytes: s.bytes, Err: err}
	if s.file != nil {
		e.AvailableBytes, _ = diskRoom(s.file)
	}
	return e
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
