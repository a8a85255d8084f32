package torchfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

const (
	localSignature     = "PK\x03\x04"
	directorySignature = "PK\x01\x02"
	endSignature       = "PK\x05\x06"
	end64Signature     = "PK\x06\x06"
	locator64Signature = "PK\x06\x07"

	localBytes, directoryBytes, endBytes, end64Bytes, locator64Bytes = 30, 46, 22, 56, 20

	maxDirectory = 8 << 20 // bytes; a record takes about a hundred
)

// archive is the directory of a zip.
type archive struct {
	file    io.ReaderAt
	records map[string]*record
	end     int64 // of the records: where the directory begins
	inflate int64 // bytes that compressed records may still have
}

// readArchive reads the directory, which must lie between the records and the end of the file, and checks all of it.
func readArchive(file io.ReaderAt, size int64) (*archive, error) {
	count, begin, end, err := findDirectory(file, size)
	if err != nil {
		return nil, err
	}
	directory := make([]byte, end-begin)
	if err := readFull(file, directory, begin, "a zip's directory"); err != nil {
		return nil, err
	}
	a := &archive{file: file, records: map[string]*record{}, end: begin, inflate: maxInflate}
	for n := uint64(0); len(directory) > 0; n++ {
		r, rest, err := parseRecord(directory)
		if err != nil {
			return nil, err
		}
		directory = rest
		if n == count || len(directory) == 0 && n+1 != count {
			return nil, refuse(fmt.Sprintf("a zip of %d records", count), "another number of them")
		}
		if strings.HasSuffix(r.name, "/") && r.size == 0 {
			continue
		}
		if a.records[r.name] != nil {
			return nil, refuse("each record of a zip once", fmt.Sprintf("%q twice", r.name))
		}
		if err := r.check(begin); err != nil {
			return nil, err
		}
		a.records[r.name] = r
	}
	return a, nil
}

// findDirectory finds the directory at the end of a zip, by the 64-bit numbers if there are any.
func findDirectory(file io.ReaderAt, size int64) (count uint64, begin, end int64, err error) {
	fail := func(expected, got string) (uint64, int64, int64, error) {
		return 0, 0, 0, refuse(expected, got)
	}
	tail := make([]byte, min(size, endBytes+1<<16-1+locator64Bytes))
	if err := readFull(file, tail, size-int64(len(tail)), "the end of a zip"); err != nil {
		return 0, 0, 0, err
	}
	at := len(tail) - endBytes
	for ; at >= 0; at-- {
		if string(tail[at:at+4]) == endSignature && at+endBytes+int(binary.LittleEndian.Uint16(tail[at+20:])) == len(tail) {
			break
		}
	}
	if at < 0 {
		return fail("a zip with its directory at the end", "one that is cut off")
	}
	last := tail[at:]
	end = size - int64(len(tail)) + int64(at)
	count = uint64(binary.LittleEndian.Uint16(last[10:]))
	bytes, offset := uint64(binary.LittleEndian.Uint32(last[12:])), uint64(binary.LittleEndian.Uint32(last[16:]))
	if at >= locator64Bytes && string(tail[at-locator64Bytes:][:4]) == locator64Signature {
		end -= locator64Bytes + end64Bytes
		var end64 [end64Bytes]byte
		if at64 := binary.LittleEndian.Uint64(tail[at-locator64Bytes+8:]); end < 0 || at64 != uint64(end) {
			return fail(fmt.Sprintf("the end of a zip's directory at byte %d", end), fmt.Sprint(at64))
		}
		if err := readFull(file, end64[:], end, "the end of a zip's directory"); err != nil {
			return 0, 0, 0, err
		}
		if string(end64[:4]) != end64Signature {
			return fail("the end of a zip's directory", "other bytes")
		}
		count, bytes, offset = binary.LittleEndian.Uint64(end64[32:]), binary.LittleEndian.Uint64(end64[40:]), binary.LittleEndian.Uint64(end64[48:])
	}
	switch {
	case bytes > maxDirectory:
		return fail(fmt.Sprintf("a zip's directory of at most %d bytes", maxDirectory), fmt.Sprint(bytes))
	case offset > uint64(end) || offset+bytes != uint64(end):
		return fail(fmt.Sprintf("a zip's directory that ends at byte %d", end), fmt.Sprintf("%d bytes from %d on", bytes, offset))
	case count > bytes/directoryBytes:
		return fail(fmt.Sprintf("at most %d records in a zip's directory of %d bytes", bytes/directoryBytes, bytes), fmt.Sprint(count))
	}
	return count, int64(offset), end, nil
}

// parseRecord reads the first entry of a directory.
func parseRecord(d []byte) (r *record, rest []byte, err error) {
	damaged := refuse("an entry of a zip's directory", "damaged bytes")
	if len(d) < directoryBytes || string(d[:4]) != directorySignature {
		return nil, nil, damaged
	}
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(d[at:])) }
	u32 := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(d[at:])) }
	name, extra := directoryBytes+u16(28), directoryBytes+u16(28)+u16(30)
	if len(d) < extra+u16(32) {
		return nil, nil, damaged
	}
	r = &record{name: string(d[directoryBytes:name]), flags: u16(8), method: u16(10), crc: uint32(u32(16))}
	stored, size, header := u32(20), u32(24), u32(42)
	wide := []*uint64{&size, &stored, &header}
	for fields := d[name:extra]; len(fields) >= 4; {
		id, n := binary.LittleEndian.Uint16(fields), int(binary.LittleEndian.Uint16(fields[2:]))
		if n > len(fields)-4 {
			return nil, nil, damaged
		}
		field := fields[4 : 4+n]
		fields = fields[4+n:]
		for i := 0; id == 1 && i < len(wide); i++ {
			if *wide[i] != 1<<32-1 {
				continue
			}
			if len(field) < 8 {
				return nil, nil, damaged
			}
			*wide[i], field = binary.LittleEndian.Uint64(field), field[8:]
		}
		if id == 1 {
			wide = nil // only the first counts
		}
	}
	if max(stored, size, header) >= 1<<62 {
		return nil, nil, damaged
	}
	r.stored, r.size, r.header = int64(stored), int64(size), int64(header)
	return r, d[extra+u16(32):], nil
}

func readFull(file io.ReaderAt, data []byte, at int64, what string) error {
	if n, err := file.ReadAt(data, at); n < len(data) {
		return &Error{Expected: what, Got: readFault(err), Err: err}
	}
	return nil
}

// locate finds where a record's bytes begin: behind its own header, whose name must be that of the directory.
func (a *archive) locate(r *record) error {
	if r.begin != 0 {
		return nil
	}
	header := make([]byte, localBytes+len(r.name))
	if err := readFull(a.file, header, r.header, "the record "+r.name); err != nil {
		return err
	}
	names := int(binary.LittleEndian.Uint16(header[26:]))
	if string(header[:4]) != localSignature || names != len(r.name) || !bytes.Equal(header[localBytes:], []byte(r.name)) {
		return refuse(fmt.Sprintf("the record %q where the zip's directory says", r.name), "other bytes")
	}
	begin := r.header + int64(len(header)) + int64(binary.LittleEndian.Uint16(header[28:]))
	if r.stored > a.end-begin {
		return refuse(fmt.Sprintf("%d bytes of the record %q", r.stored, r.name), fmt.Sprint(max(0, a.end-begin)))
	}
	r.begin = begin
	return nil
}
