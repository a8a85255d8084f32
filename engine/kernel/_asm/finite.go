package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// finiteBlock is kernel.finiteBlock in vectors.
const finiteBlock = 4

func finite(g *gen) {
	g.function("carriesAVX2", "func(data *byte, blocks int, exponents, one uint32) uint32", "is carries, of a number of blocks that is not 0.")
	data, n, exponents, one := g.arg("data"), g.arg("blocks"), g.broadcastArg("exponents"), g.broadcastArg("one")
	var carried [finiteBlock]reg.VecVirtual
	for i := range carried {
		carried[i] = g.zero()
	}
	g.Label("block")
	for i := range carried {
		y := g.YMM()
		g.VPAND(operand.Mem{Base: data, Disp: 32 * i}, exponents, y)
		g.VPADDD(one, y, y)
		g.VPOR(y, carried[i], carried[i])
	}
	g.ADDQ(operand.U32(32*finiteBlock), data)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("block"))
	g.returnFold(carried[:], func(a, b, dst operand.Op) { g.VPOR(a, b, dst) })
}
