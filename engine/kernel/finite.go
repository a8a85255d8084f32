package kernel

// The bits of the exponents in four bytes of values, one float32 or two halves.
const (
	ExponentF32  = 0x7f800000
	ExponentF16  = 0x7c007c00
	ExponentBF16 = 0x7f807f80
)

// finiteBlock is the bytes that carries looks at in a turn.
const finiteBlock = 128

// Finite reports whether no value of little-endian data is a NaN or an infinity: whether none has all bits of its exponent,
// which one of the constants tells, set. A rest of less than four bytes is not looked at.
// What bounds it: reading, up to what the second-level cache gives.
func Finite(data []byte, exponents uint32) bool {
	one := exponents &^ (exponents << 1) // the lowest bit of each
	carried := uint32(0)
	if n := len(data) / finiteBlock; n > 0 {
		carried = carries(data[:n*finiteBlock], exponents, one)
		data = data[n*finiteBlock:]
	}
	carried |= carriesGeneric(data, exponents, one)
	return carried&(exponents+one) == 0
}
