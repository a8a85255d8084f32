package torchfile

import (
	"bytes"
	"compress/flate"
	"fmt"
	"hash/crc32"
	"io"
	"sort"
	"strings"
	"sync"
)

// record is one file in a zip.
type record struct {
	name          string
	flags, method int
	crc           uint32
	header        int64 // where its own header is
	begin, stored int64 // its bytes there; begin is 0 until it has been located
	size          int64 // of what they are uncompressed

	once   sync.Once
	broken error // what verify found
}

const (
	methodStored, methodDeflated = 0, 8

	encrypted = 1 // a flag
)

// check refuses what a record of weights is not. The records end at byte end.
func (r *record) check(end int64) error {
	fail := func(expected, got string) error {
		return refuse(expected, fmt.Sprintf("%s in the record %q", got, r.name))
	}
	switch {
	case strings.HasPrefix(r.name, "/") || strings.Contains(r.name, `\`) || strings.Contains("/"+r.name+"/", "/../") || r.name == "":
		return fail("records without paths in their names", "a path")
	case r.flags&encrypted != 0:
		return fail("a zip that is not encrypted", "an encryption")
	case r.method != methodStored && r.method != methodDeflated:
		return fail("records that are stored or deflated", fmt.Sprintf("compression %d", r.method))
	case r.method == methodStored && r.stored != r.size:
		return fail("one size of what is not compressed", "two")
	case r.method == methodDeflated && r.size > 64*max(r.stored, 1)+4096:
		return fail("a compression to no less than a 64th", "more")
	case r.header > end-localBytes || r.stored > end-r.header-localBytes:
		return fail("records before the zip's directory", "an end behind it")
	}
	return nil
}

// open reads the bytes of a record that has been located, uncompressed.
func (r *record) open(file io.ReaderAt) io.Reader {
	stored := io.NewSectionReader(file, r.begin, r.stored)
	if r.method == methodDeflated {
		return flate.NewReader(stored)
	}
	return stored
}

// verify compares a record's size and CRC-32 with those that the directory has, once: it reads all of it.
func (r *record) verify(file io.ReaderAt) error {
	r.once.Do(func() {
		sum := crc32.NewIEEE()
		buffer := make([]byte, 256<<10)
		n, err := io.CopyBuffer(struct{ io.Writer }{sum}, io.LimitReader(r.open(file), r.size+1), buffer)
		what := fmt.Sprintf("%d bytes with CRC-32 %08x in the record %q", r.size, r.crc, r.name)
		switch {
		case err != nil:
			r.broken = &Error{Expected: what, Got: "damaged ones: " + readFault(err), Err: err}
		case n != r.size:
			r.broken = refuse(what, "another number of bytes")
		case sum.Sum32() != r.crc:
			r.broken = refuse(what, fmt.Sprintf("CRC-32 %08x", sum.Sum32()))
		}
	})
	return r.broken
}

// bytes reads a record that is to have at most so many bytes.
func (a *archive) bytes(r *record, limit int64) ([]byte, error) {
	if r.size > limit {
		return nil, refuse(fmt.Sprintf("at most %d bytes in the record %q", limit, r.name), fmt.Sprint(r.size))
	}
	if err := a.locate(r); err != nil {
		return nil, err
	}
	if err := r.verify(a.file); err != nil {
		return nil, err
	}
	data := make([]byte, r.size)
	if _, err := io.ReadFull(r.open(a.file), data); err != nil {
		return nil, &Error{Expected: "the record " + r.name, Got: readFault(err), Err: err}
	}
	return data, nil
}

// data is a record's bytes for tensors: those of the file, or the uncompressed ones.
func (a *archive) data(r *record) (Bytes, error) {
	if r.method == methodStored {
		return Bytes{Offset: r.begin, Size: r.size}, a.locate(r)
	}
	content, err := a.bytes(r, a.inflate)
	a.inflate -= int64(len(content))
	return Bytes{Size: r.size, Memory: bytes.NewReader(content)}, err
}

// Verify checks the record that byte offset of the file is in, if it is in one, before anything of it is used: a zip has
// CRC-32 of each. It reads a record once, whole, however often and by however many it is called. The error is an Error.
func (f *File) Verify(file io.ReaderAt, offset int64) error {
	i := sort.Search(len(f.records), func(i int) bool { return f.records[i].begin+f.records[i].stored > offset })
	if i == len(f.records) || f.records[i].begin > offset {
		return nil
	}
	return f.records[i].verify(file)
}
