package weights

import (
	"encoding/binary"
	"io"
	"math"
	"sync"
)

// float64s is the one type that is not read as it is stored.
const float64s = "F64"

// narrowed is the float64 values of a file as float32, rounded to nearest even: those that begin at byte phase of 8. The
// float32 of the value at byte 8i+phase has the bytes from 4i+phase/2 on, so that tensors stay in the order of the file.
// It is comparable: sections of one file have the same Outer reader.
type narrowed struct {
	*file
	phase int64
}

// narrowedSection is that of the float64 values in n bytes from an offset of the file on.
func narrowedSection(f *file, offset, n int64) *io.SectionReader {
	return io.NewSectionReader(narrowed{f, offset % 8}, offset/2, n/2)
}

// wideBuffers hold what narrowed reads of a file at a time.
var wideBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// ReadAt implements io.ReaderAt. Errors are those of the file.
func (n narrowed) ReadAt(p []byte, off int64) (int, error) {
	wide := wideBuffers.Get().(*[256 << 10]byte)
	defer wideBuffers.Put(wide)
	done := 0
	for done < len(p) {
		inside := (off + int64(done) - n.phase/2) & 3 // of a value
		first := 2*(off+int64(done)-inside-n.phase/2) + n.phase
		values := wide[:min(len(wide), 8*((int(inside)+len(p)-done+3)/4))]
		if _, err := n.file.ReadAt(values, first); err != nil {
			return done, err
		}
		for at := 0; at < len(values); at += 8 {
			narrow := math.Float32bits(float32(math.Float64frombits(binary.LittleEndian.Uint64(values[at:]))))
			for ; inside < 4 && done < len(p); inside++ {
				p[done] = byte(narrow >> (8 * inside))
				done++
			}
			inside = 0
		}
	}
	return done, nil
}
