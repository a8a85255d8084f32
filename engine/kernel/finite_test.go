package kernel

import (
	"math/rand/v2"
	"testing"
)

// The largest values are finite and what follows them is not, wherever it stands.
func TestFinite(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, c := range []struct {
			exponents, largest uint32
			size               int
		}{{ExponentF32, 0x7f7fffff, 4}, {ExponentF16, 0x7bff, 2}, {ExponentBF16, 0x7f7f, 2}} {
			for range 1000 {
				data := make([]byte, r.IntN(600)&^3+r.IntN(4))
				n := len(data) &^ 3 / c.size
				put := func(i int, bits uint32) {
					if r.IntN(2) == 0 {
						bits |= 1 << (8*c.size - 1)
					}
					for k := range c.size {
						data[i*c.size+k] = byte(bits >> (8 * k))
					}
				}
				for i := range n {
					bits := r.Uint32N(c.largest + 1)
					if r.IntN(4) == 0 {
						bits = c.largest
					}
					put(i, bits)
				}
				for i := n * c.size; i < len(data); i++ { // a rest
					data[i] = 0xff
				}
				if !Finite(data, c.exponents) {
					t.Fatalf("%08x: %x is finite", c.exponents, data)
				}
				if n == 0 {
					continue
				}
				at := r.IntN(n)
				put(at, c.largest+1+r.Uint32N(2)) // an infinity or a NaN
				if Finite(data, c.exponents) {
					t.Fatalf("%08x: value %d of %x is not finite", c.exponents, at, data)
				}
			}
		}
	})
}
