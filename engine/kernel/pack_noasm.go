//go:build purego || !amd64

package kernel

func packU8(dst, src []uint8, rows, in, taps int)   { packGeneric(dst, src, rows, in, taps, 0) }
func packU16(dst, src []uint16, rows, in, taps int) { packGeneric(dst, src, rows, in, taps, 0) }
func packU32(dst, src []uint32, rows, in, taps int) { packGeneric(dst, src, rows, in, taps, 0) }
