package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// streamBlock is kernel.StreamBlock in vectors of eight.
const streamBlock = 8

func stream(g *gen) {
	g.function("streamReadAVX2", "func(x *float32, blocks int)", "is StreamRead for a positive number of blocks.")
	x, n := g.arg("x"), g.arg("blocks")
	g.Label("read")
	for i := range streamBlock {
		g.VMOVUPS(operand.Mem{Base: x, Disp: 32 * i}, g.YMM())
	}
	g.ADDQ(operand.U32(32*streamBlock), x)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("read"))
	g.ret()

	g.function("streamCopyAVX2", "func(dst, x *float32, blocks int)", "is StreamCopy for a positive number of blocks.")
	dst, x, n := g.arg("dst"), g.arg("x"), g.arg("blocks")
	g.Label("copy")
	var ys [streamBlock]reg.VecVirtual
	for i := range ys {
		ys[i] = g.YMM()
		g.VMOVUPS(operand.Mem{Base: x, Disp: 32 * i}, ys[i])
	}
	for i, y := range ys {
		g.VMOVUPS(y, operand.Mem{Base: dst, Disp: 32 * i})
	}
	g.ADDQ(operand.U32(32*streamBlock), x)
	g.ADDQ(operand.U32(32*streamBlock), dst)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("copy"))
	g.ret()
}
