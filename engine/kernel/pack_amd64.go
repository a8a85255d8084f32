//go:build !purego

package kernel

import "unsafe"

//go:noescape
func packU8AVX2(dst, src *uint8, stride, groups, taps int, offsets *int)

//go:noescape
func packU16AVX2(dst, src *uint16, stride, groups, taps int, offsets *int)

//go:noescape
func packU32AVX2(dst, src *uint32, stride, groups, taps int, offsets *int)

// packTaps is the most taps the assembly is given: filters of 5x5.
const packTaps = 25

func packU8(dst, src []uint8, rows, in, taps int)   { pack(dst, src, rows, in, taps) }
func packU16(dst, src []uint16, rows, in, taps int) { pack(dst, src, rows, in, taps) }
func packU32(dst, src []uint32, rows, in, taps int) { pack(dst, src, rows, in, taps) }

// pack gives whole groups of 8 inputs to the assembly, and the rest to plain Go.
func pack[T uint8 | uint16 | uint32](dst, src []T, rows, in, taps int) {
	groups := in / 8
	if !useAVX2 || rows != TileCols || taps > packTaps || groups == 0 {
		packGeneric(dst, src, rows, in, taps, 0)
		return
	}
	size := int(unsafe.Sizeof(src[0]))
	var offsets [8 * packTaps]int // in bytes, of the 8*taps elements of a group in the panel
	for e := range 8 * taps {
		offsets[e] = (e%taps*in + e/taps) * TileCols * size
	}
	stride, to, from := in*taps*size, unsafe.Pointer(&dst[0]), unsafe.Pointer(&src[0]) // T by its size
	switch size {
	case 1:
		packU8AVX2((*uint8)(to), (*uint8)(from), stride, groups, taps, &offsets[0])
	case 2:
		packU16AVX2((*uint16)(to), (*uint16)(from), stride, groups, taps, &offsets[0])
	case 4:
		packU32AVX2((*uint32)(to), (*uint32)(from), stride, groups, taps, &offsets[0])
	}
	packGeneric(dst, src, rows, in, taps, 8*groups)
}
