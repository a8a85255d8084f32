//go:build purego || !amd64

package kernel

func carries(data []byte, exponents, one uint32) uint32 { return carriesGeneric(data, exponents, one) }
