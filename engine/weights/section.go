package weights

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/triptych-serving/triptych/engine/kernel"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// The types that are not read as they are stored. F8_E4M3 has no infinities, and NaN at 0x7f and 0xff alone; F8_E5M2 is the upper
// half of a float16.
const (
	float64s   = "F64"
	float8E4M3 = "F8_E4M3"
	float8E5M2 = "F8_E5M2"
)

// bytesReader reads what tensors are stored in.
type bytesReader interface {
	io.ReaderAt
	fault(off int64, broken *Error) *Error // names file and tensor
}

// place is where a tensor's bytes are, as Prints know them.
func (e *entry) place(f *file) (where string, begin, end int64) {
	if e.gathered != nil {
		return e.gathered.place(), e.begin, e.end
	}
	return f.path, f.start + e.begin, f.start + e.end
}

// section reads a tensor in the type that Set.Info tells. Sections of one file and type have the same Outer reader, and are there in
// the order of the file.
func (f *file) section(e entry) *io.SectionReader {
	var source bytesReader = f
	if e.gathered != nil {
		source = e.gathered
	}
	_, begin, end := e.place(f)
	switch dtype, _ := tensor.ParseDType(e.dtype); {
	case e.dtype == float64s:
		n := narrowed{source, begin % 8}
		return io.NewSectionReader(finite{n, tensor.F32, n.phase / 2 % 4}, begin/2, (end-begin)/2)
	case e.dtype == float8E4M3:
		return io.NewSectionReader(finite{widened{source, &e4m3}, tensor.F16, 0}, 2*begin, 2*(end-begin))
	case e.dtype == float8E5M2:
		return io.NewSectionReader(finite{widened{source, &e5m2}, tensor.F16, 0}, 2*begin, 2*(end-begin))
	case dtype.IsFloat():
		return io.NewSectionReader(finite{source, dtype, begin % int64(dtype.Size())}, begin, end-begin)
	}
	return io.NewSectionReader(source, begin, end-begin)
}

// finite refuses NaN and infinities among the values that are read whole. A value has its first byte at an offset that leaves phase.
type finite struct {
	bytesReader
	dtype tensor.DType
	phase int64
}

// exponents are those of four bytes.
func exponents(d tensor.DType) uint32 {
	switch d {
	case tensor.F16:
		return kernel.ExponentF16
	case tensor.BF16:
		return kernel.ExponentBF16
	}
	return kernel.ExponentF32
}

// ReadAt implements io.ReaderAt.
func (r finite) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.bytesReader.ReadAt(p, off)
	if err != nil {
		return n, err
	}
	size := int64(r.dtype.Size())
	skip := (r.phase - off%size + size) % size // of a value that began before
	if skip >= int64(len(p)) {
		return n, nil
	}
	values := p[skip : int64(len(p))-(int64(len(p))-skip)%size]
	whole := len(values) &^ 3
	if kernel.Finite(values[:whole], exponents(r.dtype)) && r.isFinite(values[whole:]) {
		return n, nil
	}
	for at := int64(0); ; at += size {
		if value := values[at : at+size]; !r.isFinite(value) {
			wide := []float32{0}
			_ = tensor.Widen(wide, r.dtype, value) // it is a float
			return n, r.fault(off+skip+at, &Error{Expected: "finite numbers", Got: fmt.Sprint(wide[0])})
		}
	}
}

// isFinite tells whether a value is finite; none is.
func (r finite) isFinite(value []byte) bool {
	mask := exponents(r.dtype)
	switch len(value) {
	case 0:
		return true
	case 2:
		return uint32(binary.LittleEndian.Uint16(value))&(mask&0xffff) != mask&0xffff
	}
	return binary.LittleEndian.Uint32(value)&mask != mask
}

// narrowed is float64 values as float32, rounded to nearest even: those that begin at byte phase of 8. The
// float32 of the value at byte 8i+phase has the bytes from 4i+phase/2 on, so that tensors stay in the order of the file.
type narrowed struct {
	bytesReader
	phase int64
}

// wideBuffers hold what narrowed and widened read at a time.
var wideBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// ReadAt implements io.ReaderAt.
func (n narrowed) ReadAt(p []byte, off int64) (int, error) {
	wide := wideBuffers.Get().(*[256 << 10]byte)
	defer wideBuffers.Put(wide)
	done := 0
	for done < len(p) {
		inside := (off + int64(done) - n.phase/2) & 3 // of a value
		first := n.stored(off + int64(done) - inside)
		values := wide[:min(len(wide), 8*((int(inside)+len(p)-done+3)/4))]
		if _, err := n.bytesReader.ReadAt(values, first); err != nil {
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

// stored is where the value is whose float32 begins at off.
func (n narrowed) stored(off int64) int64 { return 2*(off-n.phase/2) + n.phase }

func (n narrowed) fault(off int64, broken *Error) *Error {
	return n.bytesReader.fault(n.stored(off), broken)
}

// widened is values of eight bits as float16, which has them all.
type widened struct {
	bytesReader
	values *[256]uint16
}

// ReadAt implements io.ReaderAt.
func (w widened) ReadAt(p []byte, off int64) (int, error) {
	buffer := wideBuffers.Get().(*[256 << 10]byte)
	defer wideBuffers.Put(buffer)
	done := 0
	for done < len(p) {
		inside := (off + int64(done)) & 1
		values := buffer[:min(len(buffer), (int(inside)+len(p)-done+1)/2)]
		if _, err := w.bytesReader.ReadAt(values, (off+int64(done))/2); err != nil {
			return done, err
		}
		for _, v := range values {
			for half := w.values[v] >> (8 * inside); inside < 2 && done < len(p); inside++ {
				p[done] = byte(half)
				half >>= 8
				done++
			}
			inside = 0
		}
	}
	return done, nil
}

func (w widened) fault(off int64, broken *Error) *Error { return w.bytesReader.fault(off/2, broken) }

// e4m3 and e5m2 are the float16 of each value.
var e4m3, e5m2 = func() (e4m3, e5m2 [256]uint16) {
	for i := range 256 {
		sign, magnitude := uint16(i&0x80)<<8, i&0x7f
		value := math.Ldexp(float64(8+magnitude&7), magnitude>>3-10)
		switch {
		case magnitude == 0x7f:
			value = math.NaN()
		case magnitude < 8: // subnormal
			value = math.Ldexp(float64(magnitude), -9)
		}
		e4m3[i], e5m2[i] = sign|tensor.F32ToF16(float32(value)), uint16(i)<<8
	}
	return e4m3, e5m2
}()
