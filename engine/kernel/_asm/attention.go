package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The tile of queries, and the bytes from one row of its scores to the next: kernel.AttentionRows and
// kernel.ScoreStride.
const (
	attentionRows = 6
	scoreBytes    = 4 * 528
)

func attention(g *gen) {
	if g.wide() {
		packPanelAVX512(g)
		scoresAVX512(g)
		mixAVX512(g)
	} else {
		packKeys(g)
		scores(g)
		mix(g)
	}
	weigh(g)
	means(g)
}

// packKeys transposes four dimensions of eight keys a turn: key i in the lower half of a register and key i+4 in the upper.
func packKeys(g *gen) {
	g.function("packKeysAVX2", "func(dst, k *float32, stride, last, d int)",
		"is PackKeys for half a panel: keys 0 to last, which is repeated up to eight, and d, a positive multiple of 4.")
	dst, k, stride, last, d := g.arg("dst"), g.arg("k"), g.arg("stride"), g.arg("last"), g.arg("d")
	g.SHLQ(operand.Imm(2), stride)
	key := []reg.GPVirtual{k}
	for i := 1; i < 8; i++ {
		p := g.GP64()
		g.MOVQ(key[i-1], p)
		g.ADDQ(stride, p)
		g.CMPQ(last, operand.Imm(uint64(i)))
		g.CMOVQLT(key[i-1], p)
		key = append(key, p)
	}
	index := g.GP64()
	g.XORQ(index, index)
	g.Label("four")
	x := make([]reg.VecVirtual, 4)
	for i := range x {
		x[i] = g.YMM()
		g.VMOVUPS(operand.Mem{Base: key[i], Index: index, Scale: 4}, x[i].AsX())
		g.VINSERTF128(operand.Imm(1), operand.Mem{Base: key[i+4], Index: index, Scale: 4}, x[i], x[i])
	}
	for i, y := range g.transposed(x) {
		g.VMOVUPS(y, operand.Mem{Base: dst, Disp: 64 * i})
	}
	g.ADDQ(operand.U32(4*64), dst)
	g.ADDQ(operand.Imm(4), index)
	g.CMPQ(index, d)
	g.JLT(operand.LabelRef("four"))
	g.ret()
}

// transposed swaps rows and columns of 4x4 elements in every 16 bytes; x is used up.
func (g *gen) transposed(x []reg.VecVirtual) []reg.VecVirtual {
	pairs := g.fresh(x)
	g.VUNPCKLPS(x[1], x[0], pairs[0])
	g.VUNPCKHPS(x[1], x[0], pairs[1])
	g.VUNPCKLPS(x[3], x[2], pairs[2])
	g.VUNPCKHPS(x[3], x[2], pairs[3])
	for i := range x {
		g.VSHUFPS(operand.Imm([]uint64{0x44, 0xee}[i%2]), pairs[2+i/2], pairs[i/2], x[i])
	}
	return x
}

// scores is tile6x16AVX2 with one tap, for one panel after the other.
func scores(g *gen) {
	g.function("scoresAVX2", "func(dst *float32, rows **float32, panels *float32, d, count int)", "is Scores for so many panels.")
	dst, rows, panel, d, count := g.arg("dst"), g.arg("rows"), g.arg("panels"), g.arg("d"), g.arg("count")
	row := make([]reg.GPVirtual, attentionRows)
	for r := range row {
		row[r] = g.GP64()
		g.MOVQ(operand.Mem{Base: rows, Disp: 8 * r}, row[r])
	}
	index, n := g.GP64(), g.GP64()
	g.Label("panel")
	sums := g.zeros(2 * attentionRows)
	g.XORQ(index, index)
	g.unrolled(d, n, 4, func(steps int) {
		for s := range steps {
			left, right, x := g.YMM(), g.YMM(), g.YMM()
			g.VMOVUPS(operand.Mem{Base: panel, Disp: 64 * s}, left)
			g.VMOVUPS(operand.Mem{Base: panel, Disp: 64*s + 32}, right)
			for r := range row {
				g.VBROADCASTSS(operand.Mem{Base: row[r], Index: index, Scale: 4, Disp: 4 * s}, x)
				g.VFMADD231PS(left, x, sums[2*r])
				g.VFMADD231PS(right, x, sums[2*r+1])
			}
		}
		g.ADDQ(operand.U32(uint64(64*steps)), panel)
		g.ADDQ(operand.Imm(uint64(steps)), index)
	})
	for i, sum := range sums {
		g.VMOVUPS(sum, operand.Mem{Base: dst, Disp: i/2*scoreBytes + i%2*32})
	}
	g.ADDQ(operand.Imm(64), dst)
	g.DECQ(count)
	g.JNZ(operand.LabelRef("panel"))
	g.ret()
}

func (g *gen) zeros(n int) []reg.VecVirtual {
	var ys []reg.VecVirtual
	for range n {
		ys = append(ys, g.zero())
	}
	return ys
}

// fresh returns a new register for every x.
func (g *gen) fresh(xs []reg.VecVirtual) []reg.VecVirtual {
	ys := make([]reg.VecVirtual, len(xs))
	for i := range ys {
		ys[i] = g.vector()
	}
	return ys
}

// unrolled writes body for a positive total of steps: several at a time, then one. n is a register to count in.
func (g *gen) unrolled(total, n reg.GPVirtual, several int, body func(steps int)) {
	again, rest, one, done := g.label("again"), g.label("rest"), g.label("one"), g.label("done")
	g.MOVQ(total, n)
	g.SUBQ(operand.Imm(uint64(several)), n)
	g.JLT(operand.LabelRef(rest))
	g.Label(again)
	body(several)
	g.SUBQ(operand.Imm(uint64(several)), n)
	g.JGE(operand.LabelRef(again))
	g.Label(rest)
	g.ADDQ(operand.Imm(uint64(several)), n)
	g.JZ(operand.LabelRef(done))
	g.Label(one)
	body(1)
	g.DECQ(n)
	g.JNZ(operand.LabelRef(one))
	g.Label(done)
}

// weigh goes over all rows for their maxima, computes how far their sums shrink in one vector, and goes over all rows for the
// powers, with four vectors side by side.
func weigh(g *gen) {
	g.function("weigh"+g.isa, "func(scores, top, mass, shrink *float32, n int, scale float32)",
		"is Weigh for whole panels of scores, n being a positive multiple of 16.")
	scores, top, mass, shrink, n := g.arg("scores"), g.arg("top"), g.arg("mass"), g.arg("shrink"), g.arg("n")
	rows, left, row := g.GP64(), g.GP64(), g.GP64()
	turns := []int{4, tileCols / g.width()} // vectors side by side: several, then those of a panel

	g.MOVQ(scores, row)
	g.XORQ(rows, rows)
	g.Label("maximum")
	most := make([]reg.VecVirtual, 4)
	lowest := g.constant("minus_infinity", float32(math.Inf(-1)))
	for i := range most {
		most[i] = g.load(lowest)
	}
	g.MOVQ(n, left)
	g.eachWhole(left, func(l []lanes) {
		for i, l := range l {
			x := l.load(row)
			g.VMAXPS(most[i], x, most[i]) // a NaN in x leaves the maximum as it was
		}
	}, turns...)
	now, other := g.fold(most, func(a, b, dst operand.Op) { g.VMAXPS(a, b, dst) }), g.XMM()
	g.VMOVSS(operand.Mem{Base: top, Index: rows, Scale: 4}, other)
	g.VMAXSS(other, now, now)
	g.VMOVSS(now, operand.Mem{Base: top, Index: rows, Scale: 4})
	g.VSUBSS(now, other, other)
	g.VMOVSS(other, operand.Mem{Base: shrink, Index: rows, Scale: 4})
	g.ADDQ(operand.U32(scoreBytes), row)
	g.INCQ(rows)
	g.CMPQ(rows, operand.Imm(attentionRows))
	g.JLT(operand.LabelRef("maximum"))

	live, factors := lanes{g: g, mask: g.mask(rows)}, g.vector()
	live.loadFrom(operand.Mem{Base: shrink}, factors)
	scale := g.broadcastArg("scale")
	g.VMULPS(scale, factors, factors)
	weave(g.weightOf(factors))
	live.storeAt(factors, operand.Mem{Base: shrink})

	g.XORQ(rows, rows)
	g.Label("powers")
	peak, sum := g.vector(), g.vector()
	g.VBROADCASTSS(operand.Mem{Base: top, Index: rows, Scale: 4}, peak)
	g.VBROADCASTSS(operand.Mem{Base: shrink, Index: rows, Scale: 4}, sum.AsY())
	g.VMULPS(operand.Mem{Base: mass}, sum.AsY(), sum.AsY()) // the rest of a wider vector becomes zero
	g.MOVQ(n, left)
	g.eachWhole(left, func(l []lanes) {
		var chains []chain
		for _, l := range l {
			x := g.vector()
			chains = append(chains, join(chain{
				func() { l.loadTo(scores, x) },
				func() { g.VSUBPS(peak, x, x) },
				func() { g.VMULPS(scale, x, x) },
			}, g.weightOf(x), chain{
				func() { l.store(x, scores) },
				func() { g.VADDPS(x, sum, sum) },
			}))
		}
		weave(chains...)
	}, turns...)
	if g.wide() {
		high := g.YMM()
		g.VEXTRACTF64X4(operand.Imm(1), sum, high)
		g.VADDPS(high, sum.AsY(), sum.AsY())
	}
	g.VMOVUPS(sum.AsY(), operand.Mem{Base: mass})
	g.ADDQ(operand.U32(scoreBytes), scores)
	g.ADDQ(operand.Imm(32), mass)
	g.INCQ(rows)
	g.CMPQ(rows, operand.Imm(attentionRows))
	g.JLT(operand.LabelRef("powers"))
	g.ret()
}

// weightOf replaces a score, at most 0, by its power of two.
func (g *gen) weightOf(x reg.VecVirtual) chain {
	if g.wide() {
		const notAtMost = 0x16 // or NaN
		live, p := g.K(), g.vector()
		return join(chain{func() { g.VCMPPS(operand.Imm(notAtMost), g.constant("power2_low", -127), x, live) }}, g.fraction2(x, p), chain{
			func() { g.VSCALEFPS_Z(x, p, live, x) },
		})
	}
	return join(chain{func() { g.VMAXPS(x, g.load(g.constant("power2_low", -127)), x) }}, g.power2(x))
}

// mix goes over the keys once for every 16 columns, then for 8, then for the last 1 to 7 under a mask.
func mix(g *gen) {
	g.function("mixAVX2", "func(sums, weights, values *float32, sumStride, stride, keys, d int, shrink *float32)", "is Mix; shrink may be nil.")
	sums, weights, values := g.arg("sums"), g.arg("weights"), g.arg("values")
	sumStride, stride, d, shrink := g.arg("sumStride"), g.arg("stride"), g.arg("d"), g.arg("shrink")
	keys := g.arg("keys")
	g.SHLQ(operand.Imm(2), sumStride)
	g.SHLQ(operand.Imm(2), stride)
	weight, value, n, lower := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.LEAQ(operand.Mem{Base: sums, Index: sumStride, Scale: 1}, lower)
	g.ADDQ(sumStride, lower)
	g.ADDQ(sumStride, lower)
	sumOf := func(r, half int) operand.Mem {
		m := operand.Mem{Base: sums, Disp: 32 * half}
		if r >= 3 {
			m.Base = lower
		}
		if r%3 > 0 {
			m.Index, m.Scale = sumStride, uint8(r%3)
		}
		return m
	}
	strip := func(halves int, mask reg.Register) {
		acc := make([][]reg.VecVirtual, attentionRows)
		for r := range acc {
			acc[r] = g.zeros(halves)
		}
		first := g.label("first")
		g.TESTQ(shrink, shrink)
		g.JZ(operand.LabelRef(first))
		for r := range acc {
			f := g.YMM()
			g.VBROADCASTSS(operand.Mem{Base: shrink, Disp: 4 * r}, f)
			for half, y := range acc[r] {
				g.VMULPS(sumOf(r, half), f, y)
			}
		}
		g.Label(first)
		g.MOVQ(weights, weight)
		g.MOVQ(values, value)
		g.unrolled(keys, n, 4, func(steps int) {
			for s := range steps {
				v := g.fresh(acc[0])
				for half, y := range v {
					at := operand.Mem{Base: value, Disp: 32 * half}
					if mask != nil {
						g.VMASKMOVPS(at, mask, y)
					} else {
						g.VMOVUPS(at, y)
					}
				}
				x := g.YMM()
				for r := range acc {
					g.VBROADCASTSS(operand.Mem{Base: weight, Disp: scoreBytes*r + 4*s}, x)
					for half, y := range acc[r] {
						g.VFMADD231PS(v[half], x, y)
					}
				}
				g.ADDQ(stride, value)
			}
			g.ADDQ(operand.Imm(uint64(4*steps)), weight)
		})
		for r := range acc {
			for half, y := range acc[r] {
				g.VMOVUPS(y, sumOf(r, half))
			}
		}
		g.ADDQ(operand.Imm(uint64(32*halves)), values)
		g.ADDQ(operand.Imm(uint64(32*halves)), sums)
		g.ADDQ(operand.Imm(uint64(32*halves)), lower)
		g.SUBQ(operand.Imm(uint64(8*halves)), d)
	}
	for _, halves := range []int{2, 1} {
		again, done := g.label("strip"), g.label("narrow")
		g.Label(again)
		g.CMPQ(d, operand.Imm(uint64(8*halves)))
		g.JLT(operand.LabelRef(done))
		strip(halves, nil)
		g.JMP(operand.LabelRef(again))
		g.Label(done)
	}
	g.TESTQ(d, d)
	g.JZ(operand.LabelRef("end"))
	strip(1, g.mask(d))
	g.Label("end")
	g.ret()
}

func means(g *gen) {
	g.function("means"+g.isa, "func(dst, sums, mass *float32, stride, sumStride, d, rows int)", "is Means for a positive number of rows.")
	dst, sums, mass := g.arg("dst"), g.arg("sums"), g.arg("mass")
	stride, sumStride, rows := g.arg("stride"), g.arg("sumStride"), g.arg("rows")
	g.SHLQ(operand.Imm(2), stride)
	g.SHLQ(operand.Imm(2), sumStride)
	one := g.load(g.constant("one", 1))
	g.Label("row")
	inverse, sum, other := g.vector(), g.XMM(), g.XMM()
	g.VMOVUPS(operand.Mem{Base: mass}, sum)
	g.VADDPS(operand.Mem{Base: mass, Disp: 16}, sum, sum)
	g.VPERMILPS(operand.Imm(0x4e), sum, other)
	g.VADDPS(other, sum, sum)
	g.VPERMILPS(operand.Imm(0xb1), sum, other)
	g.VADDPS(other, sum, sum)
	g.VDIVPS(sum, one.AsX(), sum)
	g.VBROADCASTSS(sum, inverse)
	n := g.arg("d")
	g.each(n, 2, func(l []lanes) {
		ys := loadAll(l, sums)
		for _, y := range ys {
			g.VMULPS(inverse, y, y)
		}
		storeAll(l, ys, dst)
	})
	g.ADDQ(stride, dst)
	g.ADDQ(sumStride, sums)
	g.ADDQ(operand.Imm(32), mass)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("row"))
	g.ret()
}
