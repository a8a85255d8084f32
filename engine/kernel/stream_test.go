package kernel

import (
	"math/rand/v2"
	"testing"
)

func TestStream(t *testing.T) {
	eachVariant(t, func(t *testing.T, r *rand.Rand) {
		for _, n := range []int{0, 1, StreamBlock - 1, StreamBlock, 3*StreamBlock + 5} {
			x, dst := normal(r, n, 1), guarded(t, n)
			for i := range dst {
				dst[i] = 7
			}
			StreamRead(x) // it must come back
			StreamCopy(dst, x)
			for i := range dst {
				want := float32(7)
				if i < n/StreamBlock*StreamBlock {
					want = x[i]
				}
				if dst[i] != want {
					t.Fatalf("%d elements: element %d is %v, want %v", n, i, dst[i], want)
				}
			}
		}
	})
}
