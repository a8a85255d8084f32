package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func softmax(g *gen) {
	maxRow(g)
	expRow(g)
}

func maxRow(g *gen) {
	g.function("maxRowAVX2", "func(s *float32, n int) float32", "is MaxRow.")
	s, n := g.arg("s"), g.arg("n")
	lowest := g.constant("minus_infinity", float32(math.Inf(-1)))
	most := [4]reg.VecVirtual{}
	for i := range most {
		most[i] = g.load(lowest)
	}
	g.each(n, len(most), func(l []lanes) {
		for i, l := range l {
			x := l.load(s)
			if l.mask != nil { // the dead lanes must not win
				g.VBLENDVPS(l.mask, x, g.load(lowest), x)
			}
			g.VMAXPS(most[i], x, most[i]) // a NaN in x leaves the maximum as it was
		}
	})
	maximum := func(a, b, dst operand.Op) { g.VMAXPS(a, b, dst) }
	g.returnFold(most[:], maximum)
}

func expRow(g *gen) {
	g.function("expRowAVX2", "func(s *float32, scale, max float32, n int) float32", "is ExpRow.")
	s, scale, top, n := g.arg("s"), g.broadcastArg("scale"), g.broadcastArg("max"), g.arg("n")
	sums := [2]reg.VecVirtual{g.zero(), g.zero()}
	g.each(n, len(sums), func(l []lanes) {
		xs := loadAll(l, s)
		live := g.fresh(xs)
		for i, x := range xs {
			g.VFMSUB213PS(top, scale, x)
			// "Not less than" is true of NaN, which so passes.
			const notLess = 0x15
			g.VCMPPS(operand.Imm(notLess), g.constant("exp_low", expLow), x, live[i])
		}
		g.exp(xs...)
		for i, x := range xs {
			g.VANDPS(live[i], x, x)
			l[i].store(x, s)
			if l[i].mask != nil {
				g.VANDPS(l[i].mask, x, x)
			}
			g.VADDPS(x, sums[i], sums[i])
		}
	})
	add := func(a, b, dst operand.Op) { g.VADDPS(a, b, dst) }
	g.returnFold(sums[:], add)
}
