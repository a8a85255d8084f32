//go:build !purego

package kernel

//go:noescape
func carriesAVX2(data *byte, blocks int, exponents, one uint32) uint32

func carries(data []byte, exponents, one uint32) uint32 {
	if useAVX2 {
		return carriesAVX2(&data[0], len(data)/finiteBlock, exponents, one)
	}
	return carriesGeneric(data, exponents, one)
}
