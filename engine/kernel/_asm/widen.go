package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func widen(g *gen) {
	widenBy(g, "widenF16AVX2", "is WidenF16.",
		func(src operand.Mem, dst reg.VecVirtual) { g.VCVTPH2PS(src, dst) },
		func(bits reg.GPVirtual) {
			x := g.XMM()
			g.VMOVD(bits.As32(), x)
			g.VCVTPH2PS(x, x)
			g.VMOVD(x, bits.As32())
		})
	widenBy(g, "widenBF16AVX2", "is WidenBF16.",
		func(src operand.Mem, dst reg.VecVirtual) {
			g.VPMOVZXWD(src, dst)
			g.VPSLLD(operand.Imm(16), dst, dst)
		},
		func(bits reg.GPVirtual) { g.SHLL(operand.Imm(16), bits.As32()) })
}

// widenBy writes a loop of eight values a turn, then of single ones: AVX2 masks no 16-bit loads.
func widenBy(g *gen, name, doc string, eight func(src operand.Mem, dst reg.VecVirtual), one func(bits reg.GPVirtual)) {
	g.function(name, "func(dst *float32, src *uint16, n int)", doc)
	dst, src, n := g.arg("dst"), g.arg("src"), g.arg("n")
	g.SUBQ(operand.Imm(8), n)
	g.JLT(operand.LabelRef("tail"))
	g.Label("eight")
	y := g.YMM()
	eight(operand.Mem{Base: src}, y)
	g.VMOVUPS(y, operand.Mem{Base: dst})
	g.ADDQ(operand.Imm(16), src)
	g.ADDQ(operand.Imm(32), dst)
	g.SUBQ(operand.Imm(8), n)
	g.JGE(operand.LabelRef("eight"))
	g.Label("tail")
	g.ADDQ(operand.Imm(8), n)
	g.JZ(operand.LabelRef("end"))
	g.Label("one")
	bits := g.GP64()
	g.MOVWLZX(operand.Mem{Base: src}, bits.As32())
	one(bits)
	g.MOVL(bits.As32(), operand.Mem{Base: dst})
	g.ADDQ(operand.Imm(2), src)
	g.ADDQ(operand.Imm(4), dst)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("one"))
	g.Label("end")
	g.ret()
}
