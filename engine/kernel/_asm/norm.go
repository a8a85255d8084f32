package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func norm(g *gen) {
	if !g.wide() { // it reads memory once and computes little: wider vectors would not help
		columnMoments(g)
	}
	for _, act := range acts {
		g.function("scaleShift"+act.suffix+g.isa, "func(dst, x, scale, shift *float32, n, stride, pixels int)", "is ScaleShift with "+act.suffix+".")
		dst, x, scale, shift, stride, pixels := g.arg("dst"), g.arg("x"), g.arg("scale"), g.arg("shift"), g.arg("stride"), g.arg("pixels")
		g.SHLQ(operand.Imm(2), stride)
		g.Label("pixel")
		n := g.arg("n")
		g.eachChain(n, g.sideBySide(act.several), func(l lanes, y reg.VecVirtual) chain {
			return join(chain{
				func() { l.loadTo(x, y) },
				func() { g.VFMADD213PS(l.load(shift), l.load(scale), y) },
			}, act.chain(g, y, y), chain{func() { l.store(y, dst) }})
		})
		g.ADDQ(stride, dst)
		g.ADDQ(stride, x)
		g.DECQ(pixels)
		g.JNZ(operand.LabelRef("pixel"))
		g.ret()
	}
	rowSums(g)
	g.function("normalize"+g.isa, "func(dst, x, gamma, beta *float32, mean, inverse float32, n int)",
		"is the last pass of LayerNorm: dst = (x-mean)*inverse*gamma + beta.")
	dst, x, gamma, beta := g.arg("dst"), g.arg("x"), g.arg("gamma"), g.arg("beta")
	mean, inverse, n := g.broadcastArg("mean"), g.broadcastArg("inverse"), g.arg("n")
	g.each(n, 2, func(l []lanes) {
		ys := loadAll(l, x)
		for i, y := range ys {
			g.VSUBPS(mean, y, y)
			g.VMULPS(inverse, y, y)
			g.VFMADD213PS(l[i].load(beta), l[i].load(gamma), y)
		}
		storeAll(l, ys, dst)
	})
	g.ret()
}

// rowSums writes the two sums of LayerNorm, with four accumulators because an addition takes 3 to 5 cycles.
func rowSums(g *gen) {
	add := func(a, b, dst operand.Op) { g.VADDPS(a, b, dst) }

	g.function("rowSum"+g.isa, "func(x *float32, n int) float32", "is the sum of a row.")
	x, n := g.arg("x"), g.arg("n")
	sums := []reg.VecVirtual{g.zero(), g.zero(), g.zero(), g.zero()}
	g.each(n, len(sums), func(l []lanes) {
		for i, l := range l {
			g.VADDPS(l.load(x), sums[i], sums[i])
		}
	})
	g.returnFold(sums, add)

	g.function("rowSquares"+g.isa, "func(x *float32, mean float32, n int) float32", "is the sum of squared distances from mean.")
	x, n = g.arg("x"), g.arg("n")
	mean := g.broadcastArg("mean")
	sums = []reg.VecVirtual{g.zero(), g.zero(), g.zero(), g.zero()}
	g.each(n, len(sums), func(l []lanes) {
		for i, l := range l {
			d := l.load(x)
			g.VSUBPS(mean, d, d)
			if l.mask != nil { // the dead lanes hold -mean
				g.keep(l.mask, d)
			}
			g.VFMADD231PS(d, d, sums[i])
		}
	})
	g.returnFold(sums, add)
}

// columnMoments goes over four pixels at a time, then over single ones: eight channels a turn, their terms of those pixels
// added up in float32 and the results in float64.
func columnMoments(g *gen) {
	g.function("columnMomentsAVX2", "func(sum, sq *float64, x, about *float32, whole, stride, pixels int)",
		"is ColumnMoments for the first whole channels, a positive multiple of 8.")
	sum, sq, x, about := g.arg("sum"), g.arg("sq"), g.arg("x"), g.arg("about")
	whole, stride, pixels := g.arg("whole"), g.arg("stride"), g.arg("pixels")
	g.SHLQ(operand.Imm(2), stride)
	for _, count := range []int{4, 1} {
		pixel, again, done := []reg.GPVirtual{x}, g.label("pixels"), g.label("done")
		g.Label(again)
		g.CMPQ(pixels, operand.Imm(uint64(count)))
		g.JLT(operand.LabelRef(done))
		for i := 1; i < count; i++ {
			p := g.GP64()
			g.LEAQ(operand.Mem{Base: pixel[i-1], Index: stride, Scale: 1}, p)
			pixel = append(pixel, p)
		}
		index, channels := g.GP64(), g.label("channels")
		g.XORQ(index, index)
		g.Label(channels)
		l := lanes{g: g, index: index}
		shift, squares := l.load(about), g.YMM()
		var distances []reg.VecVirtual
		for i, p := range pixel {
			d := l.load(p)
			g.VSUBPS(shift, d, d)
			if i == 0 {
				g.VMULPS(d, d, squares)
			} else {
				g.VFMADD231PS(d, d, squares)
			}
			distances = append(distances, d)
		}
		g.addDoubles(g.pairwise(distances), sum, index)
		g.addDoubles(squares, sq, index)
		g.ADDQ(operand.Imm(8), index)
		g.CMPQ(index, whole)
		g.JLT(operand.LabelRef(channels))
		g.LEAQ(operand.Mem{Base: pixel[count-1], Index: stride, Scale: 1}, x)
		g.SUBQ(operand.Imm(uint64(count)), pixels)
		g.JMP(operand.LabelRef(again))
		g.Label(done)
	}
	g.ret()
}

// addDoubles adds eight floats to the doubles of p from index on.
func (g *gen) addDoubles(y reg.VecVirtual, p, index reg.GPVirtual) {
	high := g.YMM()
	g.VEXTRACTF128(operand.Imm(1), y, high.AsX())
	g.VCVTPS2PD(y.AsX(), y)
	g.VCVTPS2PD(high.AsX(), high)
	for half, v := range []reg.VecVirtual{y, high} {
		at := operand.Mem{Base: p, Index: index, Scale: 8, Disp: 32 * half}
		g.VADDPD(at, v, v)
		g.VMOVUPD(v, at)
	}
}

// pairwise adds one or four vectors as (a+b)+(c+d).
func (g *gen) pairwise(v []reg.VecVirtual) reg.VecVirtual {
	for ; len(v) > 1; v = v[:len(v)/2] {
		for i := range len(v) / 2 {
			g.VADDPS(v[2*i+1], v[2*i], v[2*i])
			v[i] = v[2*i]
		}
	}
	return v[0]
}
