package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func quantize(g *gen) {
	g.function("absMaxAVX2", "func(s *float32, n int) float32", "is AbsMax, of a multiple of 8 elements that is not 0.")
	s, n := g.arg("s"), g.arg("n")
	most, magnitude := g.zero(), g.load(g.bits("magnitude", 0x7fffffff))
	g.Label("eight")
	y := g.YMM()
	g.VPAND(operand.Mem{Base: s}, magnitude, y)
	g.VPMAXUD(y, most, most)
	g.ADDQ(operand.Imm(32), s)
	g.SUBQ(operand.Imm(8), n)
	g.JNZ(operand.LabelRef("eight"))
	g.returnFold([]reg.VecVirtual{most}, func(a, b, dst operand.Op) { g.VPMAXUD(a, b, dst) })

	g.function("quantizeI8AVX2", "func(dst *int8, src *float32, n int, scale float32)", "is QuantizeI8, of a multiple of 32 elements that is not 0.")
	dst, src, n, scale := g.arg("dst"), g.arg("src"), g.arg("n"), g.broadcastArg("scale")
	order := g.YMM() // packing works by halves: doublewords 0, 4, 1, 5, 2, 6, 3, 7 are neighbours
	at := g.StaticGlobal("pack_order")
	g.DataAttributes(rodata)
	for _, i := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
		g.AppendDatum(operand.U32(i))
	}
	g.VMOVDQU(at, order)
	g.Label("turn")
	var v [4]reg.VecVirtual
	for i := range v {
		v[i] = g.YMM()
		g.VMOVUPS(operand.Mem{Base: src, Disp: 32 * i}, v[i])
		g.VDIVPS(scale, v[i], v[i])
		g.VCVTPS2DQ(v[i], v[i])
	}
	g.VPACKSSDW(v[1], v[0], v[0])
	g.VPACKSSDW(v[3], v[2], v[2])
	g.VPACKSSWB(v[2], v[0], v[0])
	g.VPERMD(v[0], order, v[0])
	g.VMOVDQU(v[0], operand.Mem{Base: dst})
	g.ADDQ(operand.U32(128), src)
	g.ADDQ(operand.Imm(32), dst)
	g.SUBQ(operand.Imm(32), n)
	g.JNZ(operand.LabelRef("turn"))
	g.ret()
}
