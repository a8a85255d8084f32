package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func peak(g *gen) {
	g.function("fmaPeakAVX2", "func(n int)", "is FMAPeak for a positive n.")
	n, one := g.arg("n"), g.load(g.constant("one", 1))
	var sums [12]reg.VecVirtual
	for i := range sums {
		sums[i] = g.zero()
	}
	g.Label("again")
	for _, sum := range sums {
		g.VFMADD231PS(one, one, sum)
	}
	g.DECQ(n)
	g.JNZ(operand.LabelRef("again"))
	g.ret()
}

// peakAVX512 does a round, as many operations as an AVX2 one has, with half the instructions; a turn is two rounds,
// because six sums would wait for the latency.
func peakAVX512(g *gen) {
	g.function("fmaPeakAVX512", "func(n int)", "is FMAPeak for a positive n.")
	n, one := g.arg("n"), g.load(g.constant("one", 1))
	var sums [12]reg.VecVirtual
	for i := range sums {
		sums[i] = g.zero()
	}
	g.Label("again")
	for i, sum := range sums {
		if i == len(sums)/2 {
			g.DECQ(n)
			g.JZ(operand.LabelRef("done"))
		}
		g.VFMADD231PS(one, one, sum)
	}
	g.DECQ(n)
	g.JNZ(operand.LabelRef("again"))
	g.Label("done")
	g.ret()
}
