package tensor

import (
	"math"
	"math/rand"
	"testing"
)

// The largest values are finite and what follows them is not, wherever it stands.
func TestNotFinite(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for _, c := range []struct {
		dtype   DType
		largest uint64
	}{{F32, 0x7f7fffff}, {F16, 0x7bff}, {BF16, 0x7f7f}} {
		size := c.dtype.Size()
		for range 2000 {
			data := make([]byte, r.Intn(200))
			n := len(data) / size
			put := func(i int, bits uint64) {
				for k := range size {
					data[i*size+k] = byte(bits >> (8 * k))
				}
			}
			sign := uint64(1) << (8*size - 1)
			for i := range n {
				bits := uint64(r.Int63n(int64(c.largest) + 1))
				if r.Intn(4) == 0 {
					bits = c.largest
				}
				put(i, bits|sign*uint64(r.Intn(2)))
			}
			for i := n * size; i < len(data); i++ { // a part of a value
				data[i] = 0xff
			}
			if got := NotFinite(c.dtype, data); got != -1 {
				t.Fatalf("%v: value %d of %x is finite", c.dtype, got, data)
			}
			if n == 0 {
				continue
			}
			at := r.Intn(n)
			put(at, c.largest+1+uint64(r.Intn(2))|sign*uint64(r.Intn(2))) // an infinity or a NaN
			if got := NotFinite(c.dtype, data); got != at {
				t.Fatalf("%v: value %d of %x, want %d", c.dtype, got, data, at)
			}
		}
	}
	if got := NotFinite(I32, []byte{0xff, 0xff, 0xff, 0xff}); got != -1 {
		t.Errorf("an integer is not finite: %d", got)
	}
}

func BenchmarkNotFinite(b *testing.B) {
	for _, d := range []DType{F32, F16, BF16} {
		b.Run(d.String(), func(b *testing.B) {
			data := make([]byte, 256<<10)
			if err := Narrow(data[:4*d.Size()], d, []float32{1, -2, math.MaxInt8, 0}); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if NotFinite(d, data) != -1 {
					b.Fatal("not finite")
				}
			}
		})
	}
}
