package tensor

import "encoding/binary"

// NotFinite is the index of the first NaN or infinity among little-endian values of a floating point type, -1 if there is none. A
// rest of less than a value is not looked at.
func NotFinite(d DType, data []byte) int {
	var exponent, one uint64 // the exponent's bits of the values in eight bytes, and the lowest of them
	switch d {
	case F32:
		exponent, one = 0x7f800000_7f800000, 0x00800000_00800000
	case F16:
		exponent, one = 0x7c007c00_7c007c00, 0x04000400_04000400
	case BF16:
		exponent, one = 0x7f807f80_7f807f80, 0x00800080_00800080
	default:
		return -1
	}
	// An exponent of ones carries into the sign's bit, and no other reaches it.
	carried, signs, rest := uint64(0), exponent+one, data
	for len(rest) >= 32 {
		v := rest[:32]
		rest = rest[32:]
		a, b := binary.LittleEndian.Uint64(v)&exponent+one, binary.LittleEndian.Uint64(v[8:])&exponent+one
		c, e := binary.LittleEndian.Uint64(v[16:])&exponent+one, binary.LittleEndian.Uint64(v[24:])&exponent+one
		carried |= a | b | c | e
	}
	first, size := (len(data)-len(rest))/d.Size(), d.Size()
	if carried&signs != 0 {
		first, rest = 0, data
	}
	for ; len(rest) >= size; first, rest = first+1, rest[size:] {
		bits := uint64(binary.LittleEndian.Uint16(rest))
		if size == 4 {
			bits = uint64(binary.LittleEndian.Uint32(rest))
		}
		if mask := exponent & (1<<(8*size) - 1); bits&mask == mask {
			return first
		}
	}
	return -1
}
