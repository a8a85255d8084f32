package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// packPanelAVX512 is packKeys for all 16 keys of a panel: key 4l+i in the l-th quarter of the i-th register.
func packPanelAVX512(g *gen) {
	g.function("packPanelAVX512", "func(dst, k *float32, stride, d int)", "is PackKeys for a panel of as many keys, d being a positive multiple of 4.")
	dst, k, stride, d := g.arg("dst"), g.arg("k"), g.arg("stride"), g.arg("d")
	g.SHLQ(operand.Imm(2), stride)
	three := g.GP64()
	g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, three)
	fourth := []reg.GPVirtual{k}
	for i := 1; i < 4; i++ {
		fourth = append(fourth, g.GP64())
		g.LEAQ(operand.Mem{Base: fourth[i-1], Index: stride, Scale: 4}, fourth[i])
	}
	key := func(quarter, i int) operand.Mem {
		return []operand.Mem{
			{Base: fourth[quarter]},
			{Base: fourth[quarter], Index: stride, Scale: 1},
			{Base: fourth[quarter], Index: stride, Scale: 2},
			{Base: fourth[quarter], Index: three, Scale: 1},
		}[i]
	}
	g.Label("four")
	x := make([]reg.VecVirtual, 4)
	for i := range x {
		x[i] = g.ZMM()
		g.VMOVUPS(key(0, i), x[i].AsX())
		for quarter := 1; quarter < 4; quarter++ {
			g.VINSERTF32X4(operand.Imm(uint64(quarter)), key(quarter, i), x[i], x[i])
		}
	}
	for i, y := range g.transposed(x) {
		g.VMOVUPS(y, operand.Mem{Base: dst, Disp: 64 * i})
	}
	for _, p := range fourth {
		g.ADDQ(operand.Imm(16), p)
	}
	g.ADDQ(operand.U32(4*64), dst)
	g.SUBQ(operand.Imm(4), d)
	g.JNZ(operand.LabelRef("four"))
	g.ret()
}

// scoresAVX512 goes over two panels at once, which gives the multiply-adds twelve sums, and over three where an odd
// number is left. A score is summed in the same order in all of them.
func scoresAVX512(g *gen) {
	g.function("scoresAVX512", "func(dst *float32, rows **float32, panels *float32, d, count int)", "is Scores for so many panels.")
	dst, rows, panel, d, count := g.arg("dst"), g.arg("rows"), g.arg("panels"), g.arg("d"), g.arg("count")
	row := make([]reg.GPVirtual, attentionRows)
	for r := range row {
		row[r] = g.GP64()
		g.MOVQ(operand.Mem{Base: rows, Disp: 8 * r}, row[r])
	}
	index, n, size := g.GP64(), g.GP64(), g.GP64()
	g.MOVQ(d, size)
	g.SHLQ(operand.Imm(6), size)
	turn := func(panels int) {
		sums := make([][]reg.VecVirtual, attentionRows)
		for r := range sums {
			sums[r] = g.zeros(panels)
		}
		g.XORQ(index, index)
		g.unrolled(d, n, 4, func(steps int) {
			for s := range steps {
				keys, x := g.fresh(sums[0]), g.ZMM()
				for p, y := range keys {
					at := operand.Mem{Base: panel, Disp: 64 * s}
					if p > 0 {
						at.Index, at.Scale = size, uint8(p)
					}
					g.VMOVUPS(at, y)
				}
				for r := range row {
					g.VBROADCASTSS(operand.Mem{Base: row[r], Index: index, Scale: 4, Disp: 4 * s}, x)
					for p, y := range keys {
						g.VFMADD231PS(y, x, sums[r][p])
					}
				}
			}
			g.ADDQ(operand.U32(uint64(64*steps)), panel)
			g.ADDQ(operand.Imm(uint64(steps)), index)
		})
		for r := range sums {
			for p, sum := range sums[r] {
				g.VMOVUPS(sum, operand.Mem{Base: dst, Disp: r*scoreBytes + 64*p})
			}
		}
	}
	g.Label("panels")
	g.CMPQ(count, operand.Imm(3))
	g.JEQ(operand.LabelRef("three"))
	g.CMPQ(count, operand.Imm(2))
	g.JLT(operand.LabelRef("one"))
	turn(2)
	g.ADDQ(size, panel) // the second
	g.ADDQ(operand.U32(2*64), dst)
	g.SUBQ(operand.Imm(2), count)
	g.JNZ(operand.LabelRef("panels"))
	g.ret()
	g.Label("three")
	turn(3)
	g.ret()
	g.Label("one")
	turn(1)
	g.ret()
}

// mixAVX512 goes over the keys once for a strip of up to 64 columns. Strips of 16 have too few sums for the latency of a
// multiply-add, so 80 columns are 48 and 32. Eight last columns share a vector with those of the next key: column c of an
// even key is in lane 2c, of an odd key in lane 2c+1, and the weights are broadcast in pairs. If all rows begin
// in the middle of a cache line, as those of every other head do, the eight are the first ones: whole vectors that lie in
// two lines each would be bound by the loads. Other numbers of last columns are a vector under a mask.
func mixAVX512(g *gen) {
	g.function("mixAVX512", "func(sums, weights, values *float32, sumStride, stride, keys, d int, shrink *float32)", "is Mix; shrink may be nil.")
	m := &mixer{
		g: g, sums: g.arg("sums"), weights: g.arg("weights"), values: g.arg("values"), sumStride: g.arg("sumStride"), stride: g.arg("stride"),
		keys: g.arg("keys"), shrink: g.arg("shrink"), lower: g.GP64(), weight: g.GP64(), value: g.GP64(), n: g.GP64(), eight: g.GP64(),
	}
	vectors, rest := g.arg("d"), g.GP64()
	g.SHLQ(operand.Imm(2), m.sumStride)
	g.SHLQ(operand.Imm(2), m.stride)
	g.LEAQ(operand.Mem{Base: m.sums, Index: m.sumStride, Scale: 1}, m.lower)
	g.ADDQ(m.sumStride, m.lower)
	g.ADDQ(m.sumStride, m.lower)
	m.interleave = g.ZMM()
	order := g.StaticGlobal("interleave")
	g.DataAttributes(rodata)
	for i := range 8 {
		g.AppendDatum(operand.U32(i))
		g.AppendDatum(operand.U32(16 + i))
	}
	g.VMOVUPS(order, m.interleave)
	g.MOVQ(vectors, rest)
	g.ANDQ(operand.Imm(15), rest)
	g.SHRQ(operand.Imm(4), vectors)
	g.MOVQ(vectors, m.eight)
	g.SHLQ(operand.Imm(6), m.eight)
	g.CMPQ(rest, operand.Imm(8))
	g.JNE(operand.LabelRef("strip"))
	g.TESTQ(operand.U32(63), m.stride)
	g.JNZ(operand.LabelRef("strip"))
	g.MOVQ(m.values, m.value)
	g.ANDQ(operand.Imm(63), m.value)
	g.CMPQ(m.value, operand.Imm(32))
	g.JNE(operand.LabelRef("strip"))
	g.MOVQ(operand.I32(-32), m.eight)
	for _, p := range []reg.GPVirtual{m.values, m.sums, m.lower} {
		g.ADDQ(operand.Imm(32), p)
	}

	// choose jumps to the strip for a number of vectors, the first choice that fits.
	type choice struct {
		least int
		label string
	}
	choose := func(choices ...choice) {
		for _, c := range choices {
			g.CMPQ(vectors, operand.Imm(uint64(c.least)))
			g.JGE(operand.LabelRef(c.label))
		}
	}
	g.Label("strip")
	g.CMPQ(rest, operand.Imm(8))
	g.JEQ(operand.LabelRef("paired"))
	choose(choice{6, "four"}, choice{5, "three"}, choice{4, "four"}, choice{3, "three"}, choice{2, "two"}, choice{1, "one"})
	g.TESTQ(rest, rest)
	g.JZ(operand.LabelRef("end"))
	m.strip(1, g.mask(rest), false)
	g.JMP(operand.LabelRef("end"))
	g.Label("paired")
	choose(choice{6, "four"}, choice{4, "two"}, choice{3, "three_paired"}, choice{2, "two_paired"}, choice{1, "one_paired"})
	m.strip(0, nil, true)
	g.JMP(operand.LabelRef("end"))
	for count, name := range []string{"", "one", "two", "three", "four"} {
		if count == 0 {
			continue
		}
		g.Label(name)
		m.strip(count, nil, false)
		for _, p := range []reg.GPVirtual{m.values, m.sums, m.lower} {
			g.ADDQ(operand.U32(uint64(64*count)), p)
		}
		g.SUBQ(operand.U32(uint64(64*count)), m.eight)
		g.SUBQ(operand.Imm(uint64(count)), vectors)
		g.JMP(operand.LabelRef("strip"))
		if count <= 3 {
			g.Label(fmt.Sprint(name, "_paired"))
			m.strip(count, nil, true)
			g.JMP(operand.LabelRef("end"))
		}
	}
	g.Label("end")
	g.ret()
}

// mixer is what the strips of mixAVX512 share. lower points to the sums of row 3; eight is the bytes from a strip's columns to
// those in pairs; weight, value and n are the strip's own.
type mixer struct {
	g                                         *gen
	sums, lower, weights, values, shrink      reg.GPVirtual
	sumStride, stride, keys, weight, value, n reg.GPVirtual
	eight                                     reg.GPVirtual
	interleave                                reg.VecVirtual
}

// sum is where the sums of a row and a vector are.
func (m *mixer) sum(r, vector int) operand.Mem {
	at := operand.Mem{Base: m.sums, Disp: 64 * vector}
	if r >= 3 {
		at.Base = m.lower
	}
	if r%3 > 0 {
		at.Index, at.Scale = m.sumStride, uint8(r%3)
	}
	return at
}

// strip writes the sums of so many vectors, the last one under a mask unless that is nil, and of eight columns in pairs,
// which is the end.
func (m *mixer) strip(vectors int, mask reg.Register, paired bool) {
	g, live := m.g, lanes{g: m.g, mask: mask}
	acc, pairs := make([][]reg.VecVirtual, attentionRows), []reg.VecVirtual(nil)
	for r := range acc {
		acc[r] = g.zeros(vectors)
	}
	if paired {
		pairs = g.zeros(attentionRows)
	}
	first := g.label("first")
	g.TESTQ(m.shrink, m.shrink)
	g.JZ(operand.LabelRef(first))
	for r := range acc {
		for i, y := range acc[r] {
			live.loadFrom(m.sum(r, i), y)
			g.VMULPS_BCST(operand.Mem{Base: m.shrink, Disp: 4 * r}, y, y)
		}
	}
	if paired {
		m.toEight(g.ADDQ)
		for r, y := range pairs {
			g.VPMOVZXDQ(m.sum(r, 0), y)
			g.VMULPS_BCST(operand.Mem{Base: m.shrink, Disp: 4 * r}, y, y)
		}
		m.toEight(g.SUBQ)
	}
	g.Label(first)
	g.MOVQ(m.weights, m.weight)
	g.MOVQ(m.values, m.value)
	g.unrolled(m.keys, m.n, 2, func(steps int) {
		var neighbours []reg.VecVirtual
		x := g.ZMM()
		for s := range steps {
			v := g.fresh(acc[0])
			for i, y := range v {
				live.loadFrom(operand.Mem{Base: m.value, Disp: 64 * i}, y)
			}
			if paired {
				y, at := g.ZMM(), operand.Mem{Base: m.value, Index: m.eight, Scale: 1}
				if steps == 1 {
					g.VPMOVZXDQ(at, y)
				} else {
					g.VMOVUPS(at, y.AsY())
				}
				neighbours = append(neighbours, y)
			}
			for r := range acc {
				if vectors > 0 {
					g.VBROADCASTSS(operand.Mem{Base: m.weight, Disp: scoreBytes*r + 4*s}, x)
				}
				for i, y := range acc[r] {
					g.VFMADD231PS(v[i], x, y)
				}
			}
			g.ADDQ(m.stride, m.value)
		}
		if steps == 2 && paired {
			g.VPERMT2PS(neighbours[1], m.interleave, neighbours[0])
		}
		for r, y := range pairs {
			at := operand.Mem{Base: m.weight, Disp: scoreBytes * r}
			if steps == 2 {
				g.VBROADCASTSD(at, x)
			} else {
				g.VBROADCASTSS(at, x)
			}
			g.VFMADD231PS(neighbours[0], x, y)
		}
		g.ADDQ(operand.Imm(uint64(4*steps)), m.weight)
	})
	for r := range acc {
		for i, y := range acc[r] {
			live.storeAt(y, m.sum(r, i))
		}
	}
	if paired {
		m.toEight(g.ADDQ)
		for r, y := range pairs {
			odd := g.ZMM()
			g.VPSRLQ(operand.Imm(32), y, odd)
			g.VADDPS(odd, y, y)
			g.VPMOVQD(y, m.sum(r, 0))
		}
	}
}

// toEight moves sum to the eight columns in pairs, or back.
func (m *mixer) toEight(move func(by, p operand.Op)) {
	move(m.eight, m.sums)
	move(m.eight, m.lower)
}
