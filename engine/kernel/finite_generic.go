package kernel

import "encoding/binary"

// carriesGeneric adds one to the exponents and returns the bits that were set in any of the sums: an exponent of ones carries
// into the sign's bit, and no other reaches it.
func carriesGeneric(data []byte, exponents, one uint32) uint32 {
	exponents2, one2, carried := uint64(exponents)<<32|uint64(exponents), uint64(one)<<32|uint64(one), uint64(0)
	for ; len(data) >= 32; data = data[32:] {
		a, b := binary.LittleEndian.Uint64(data)&exponents2+one2, binary.LittleEndian.Uint64(data[8:])&exponents2+one2
		c, d := binary.LittleEndian.Uint64(data[16:])&exponents2+one2, binary.LittleEndian.Uint64(data[24:])&exponents2+one2
		carried |= a | b | c | d
	}
	for ; len(data) >= 4; data = data[4:] {
		carried |= uint64(binary.LittleEndian.Uint32(data)&exponents + one)
	}
	return uint32(carried>>32) | uint32(carried)
}
