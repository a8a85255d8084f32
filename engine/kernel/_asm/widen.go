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
	widenInts(g, "widenI4AVX2", "func(dst *float32, src *uint8, scales *float32, n int)", "is WidenI4.", 8, func(src reg.Register) func(row int) [2]reg.VecVirtual {
		low, eight := g.load(g.bits("low_half", 15)), g.load(g.bits("eight", 8))
		return func(row int) [2]reg.VecVirtual {
			y := [2]reg.VecVirtual{g.YMM(), g.YMM()}
			g.VPMOVZXBD(operand.Mem{Base: src, Disp: 8 * row}, y[1])
			g.VPAND(low, y[1], y[0])
			g.VPSRLD(operand.Imm(4), y[1], y[1])
			for _, q := range y {
				g.VPSUBD(eight, q, q)
			}
			return y
		}
	})
	widenInts(g, "widenI8AVX2", "func(dst *float32, src *int8, scales *float32, n int)", "is WidenI8.", 16, func(src reg.Register) func(row int) [2]reg.VecVirtual {
		return func(row int) [2]reg.VecVirtual {
			y := [2]reg.VecVirtual{g.YMM(), g.YMM()}
			for half, q := range y {
				g.VPMOVSXBD(operand.Mem{Base: src, Disp: 16*row + 8*half}, q)
			}
			return y
		}
	})
}

// widenInts writes a loop over rows of 16 columns, each rowBytes long; what with gives loads one.
func widenInts(g *gen, name, signature, doc string, rowBytes int, with func(src reg.Register) func(row int) [2]reg.VecVirtual) {
	g.function(name, signature, doc)
	dst, src, scales, n := g.arg("dst"), g.arg("src"), g.arg("scales"), g.arg("n")
	scale := [2]reg.VecVirtual{g.YMM(), g.YMM()}
	for half := range scale {
		g.VMOVUPS(operand.Mem{Base: scales, Disp: 32 * half}, scale[half])
	}
	load := with(src)
	rows := func(count int) {
		for row := range count {
			for half, y := range load(row) {
				g.VCVTDQ2PS(y, y)
				g.VMULPS(scale[half], y, y)
				g.VMOVUPS(y, operand.Mem{Base: dst, Disp: 64*row + 32*half})
			}
		}
		g.ADDQ(operand.Imm(uint64(rowBytes*count)), src)
		g.ADDQ(operand.U32(64*count), dst)
	}
	four, tail, one, end := g.label("four"), g.label("tail"), g.label("one"), g.label("end")
	g.SUBQ(operand.Imm(64), n)
	g.JLT(operand.LabelRef(tail))
	g.Label(four)
	rows(4)
	g.SUBQ(operand.Imm(64), n)
	g.JGE(operand.LabelRef(four))
	g.Label(tail)
	g.ADDQ(operand.Imm(64), n)
	g.JZ(operand.LabelRef(end))
	g.Label(one)
	rows(1)
	g.SUBQ(operand.Imm(16), n)
	g.JNZ(operand.LabelRef(one))
	g.Label(end)
	g.ret()
}

// widenBy writes a loop of 32 values a turn, then of eight and of single ones: AVX2 masks no 16-bit loads.
func widenBy(g *gen, name, doc string, eight func(src operand.Mem, dst reg.VecVirtual), one func(bits reg.GPVirtual)) {
	g.function(name, "func(dst *float32, src *uint16, n int)", doc)
	dst, src, n := g.arg("dst"), g.arg("src"), g.arg("n")
	for _, vectors := range []int{4, 1} {
		again, done, step := g.label("again"), g.label("done"), operand.Imm(uint64(8*vectors))
		g.SUBQ(step, n)
		g.JLT(operand.LabelRef(done))
		g.Label(again)
		for i := range vectors {
			y := g.YMM()
			eight(operand.Mem{Base: src, Disp: 16 * i}, y)
			g.VMOVUPS(y, operand.Mem{Base: dst, Disp: 32 * i})
		}
		g.ADDQ(operand.Imm(uint64(16*vectors)), src)
		g.ADDQ(operand.U32(32*vectors), dst)
		g.SUBQ(step, n)
		g.JGE(operand.LabelRef(again))
		g.Label(done)
		g.ADDQ(step, n)
	}
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

func widenAVX512(g *gen) {
	widenMasked(g, "widenF16AVX512", "is WidenF16.",
		func(src operand.Op, dst reg.VecVirtual) { g.VCVTPH2PS(src, dst) })
	widenMasked(g, "widenBF16AVX512", "is WidenBF16.",
		func(src operand.Op, dst reg.VecVirtual) {
			g.VPMOVZXWD(src, dst)
			g.VPSLLD(operand.Imm(16), dst, dst)
		})
}

// widenMasked writes a loop of sixteen values a vector; sixteen converts them, from memory or half a vector.
func widenMasked(g *gen, name, doc string, sixteen func(src operand.Op, dst reg.VecVirtual)) {
	g.function(name, "func(dst *float32, src *uint16, n int)", doc)
	dst, src, n := g.arg("dst"), g.arg("src"), g.arg("n")
	g.each(n, 2, func(l []lanes) {
		for _, l := range l {
			from, y := l.at(src), g.vector()
			from.Scale, from.Disp = from.Scale/2, from.Disp/2
			if l.mask == nil {
				sixteen(from, y)
			} else {
				live := g.YMM()
				g.VMOVDQU16_Z(from, l.mask, live)
				sixteen(live, y)
			}
			l.store(y, dst)
		}
	})
	g.ret()
}
