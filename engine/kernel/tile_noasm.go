//go:build purego || !amd64

package kernel

func multiply(p *Product) { multiplyGeneric(p) }
