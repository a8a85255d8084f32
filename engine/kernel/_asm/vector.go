package main

import "github.com/mmcloughlin/avo/reg"

func vector(g *gen) {
	g.function("scale"+g.isa, "func(dst *float32, f float32, n int)", "is Scale.")
	dst, f, n := g.arg("dst"), g.broadcastArg("f"), g.arg("n")
	g.each(n, 4, func(l []lanes) {
		for _, l := range l {
			y := l.load(dst)
			g.VMULPS(f, y, y)
			l.store(y, dst)
		}
	})
	g.ret()

	g.function("add"+g.isa, "func(dst, a, b *float32, n int)", "is Add.")
	dst, left, right, n := g.arg("dst"), g.arg("a"), g.arg("b"), g.arg("n")
	g.each(n, 4, func(l []lanes) {
		for _, l := range l {
			y := l.load(left)
			g.VADDPS(l.load(right), y, y)
			l.store(y, dst)
		}
	})
	g.ret()

	g.function("prelu"+g.isa, "func(dst, x, slopes *float32, n int)", "is PReLU.")
	dst, x, slopes, n := g.arg("dst"), g.arg("x"), g.arg("slopes"), g.arg("n")
	g.each(n, 4, func(l []lanes) {
		for _, l := range l {
			y := l.load(x)
			g.prelu(y, l.load(slopes))
			l.store(y, dst)
		}
	})
	g.ret()
}

// prelu replaces y by max(y, 0) + slope*min(y, 0). The maximum of NaN is y.
func (g *gen) prelu(y, slope reg.VecVirtual) {
	below := g.vector()
	g.VMINPS(y, g.zero(), below)
	g.VMAXPS(y, g.zero(), y)
	g.VFMADD231PS(slope, below, y)
}
