//go:build purego || !amd64

package kernel

func multiply(p *Product) {
	if p.Pairs {
		multiplyPairsGeneric(p)
	} else {
		multiplyGeneric(p)
	}
}
