package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// winograd writes the transforms of F(2x2,3x3) and F(4x4,3x3).
func winograd(g *gen) {
	for _, t := range []transform{
		{"F2", 2, 4, 4, 4, g.input2, g.filter2, g.output2},
		{"F4", 4, 6, 6, 6, g.input4, g.filter4, g.output4},
		{"F4Up", 4, 4, 4, 5, g.input4Up, g.filter4Up, g.output4Up},
	} {
		g.winogradForward("Input", t.name, t.reads, t.values, t.input)
		g.winogradForward("Filter", t.name, 3, t.products, t.filter)
		g.winogradOutput(t)
	}
}

// transform is a kernel.Winograd with its transforms in one dimension, which may overwrite what they are given.
type transform struct {
	name                       string
	m, reads, values, products int
	input, filter, output      func(v []reg.VecVirtual) []reg.VecVirtual
}

// winogradForward transforms from x from values at src's pointers into to x to, a vector of channels a turn: down the
// columns, then along the rows.
func (g *gen) winogradForward(what, name string, from, to int, f func(v []reg.VecVirtual) []reg.VecVirtual) {
	g.function(fmt.Sprintf("winograd%s%s%s", what, name, g.isa), "func(dst *float32, stride int, src **float32, n int)",
		fmt.Sprintf("is Winograd%s for %s.", what, name))
	dst, stride, src, n := g.arg("dst"), g.arg("stride"), g.arg("src"), g.arg("n")
	between := g.between(to, from)
	g.SHLQ(operand.Imm(2), stride)
	g.each(n, 1, func(l []lanes) {
		for c := range from {
			var v []reg.VecVirtual
			for r := range from {
				p := g.GP64()
				g.MOVQ(operand.Mem{Base: src, Disp: 8 * (r*from + c)}, p)
				v = append(v, l[0].load(p))
			}
			for r, y := range f(v) {
				between.put(r, c, y)
			}
		}
		q := g.GP64()
		g.LEAQ(operand.Mem{Base: dst, Index: l[0].index, Scale: 4}, q)
		for r := range to {
			var v []reg.VecVirtual
			for c := range from {
				v = append(v, between.get(r, c))
			}
			for _, y := range f(v) {
				l[0].storeAt(y, operand.Mem{Base: q})
				g.ADDQ(stride, q)
			}
		}
	})
	g.ret()
}

// between is where the values are that have gone through a transform in one dimension: in registers if those of AVX-512
// hold them beside what a transform needs, or in the function's own memory.
type between struct {
	g       *gen
	columns int
	held    []reg.VecVirtual
	memory  reg.GPVirtual
}

func (g *gen) between(rows, columns int) *between {
	b := &between{g: g, columns: columns}
	if g.wide() && rows*columns <= 20 {
		b.held = make([]reg.VecVirtual, rows*columns)
		return b
	}
	const line = 64 // of the cache: the stack is aligned to 8 bytes only
	g.Attributes(0) // NOSPLIT functions have no room for it
	b.memory = g.GP64()
	g.LEAQ(g.AllocLocal(4*g.width()*rows*columns+line-8), b.memory)
	g.ADDQ(operand.Imm(line-1), b.memory)
	g.ANDQ(operand.I8(-line), b.memory)
	return b
}

func (b *between) at(r, c int) operand.Mem {
	return operand.Mem{Base: b.memory, Disp: 4 * b.g.width() * (r*b.columns + c)}
}

// put keeps y, which the caller will not use again.
func (b *between) put(r, c int, y reg.VecVirtual) {
	if b.held != nil {
		b.held[r*b.columns+c] = y
	} else {
		b.g.VMOVUPS(y, b.at(r, c))
	}
}

// get may be called once for what was put.
func (b *between) get(r, c int) reg.VecVirtual {
	if b.held != nil {
		return b.held[r*b.columns+c]
	}
	return b.g.load(b.at(r, c))
}

// winogradOutput transforms 16 columns back, a vector a turn.
func (g *gen) winogradOutput(t transform) {
	g.function(fmt.Sprintf("winogradOutput%s%s", t.name, g.isa),
		"func(dst *float32, row, pixel int, src *float32, stride int, bias, slopes, residual *float32)", fmt.Sprintf("is WinogradOutput for %s.", t.name))
	dst, row, pixel := g.arg("dst"), g.arg("row"), g.arg("pixel")
	src, stride, bias, slopes, residual := g.arg("src"), g.arg("stride"), g.arg("bias"), g.arg("slopes"), g.arg("residual")
	between := g.between(t.m, t.products)
	turns, from := g.GP64(), t.products
	for _, s := range []reg.GPVirtual{row, pixel, stride} {
		g.SHLQ(operand.Imm(2), s)
	}
	// residual becomes its distance from dst, row what leads from the end of one row of pixels to the next.
	none := g.GP64()
	g.MOVQ(residual, none)
	g.SUBQ(dst, residual)
	for range t.m {
		g.SUBQ(pixel, row)
	}
	g.MOVQ(operand.U32(uint64(tileCols/g.width())), turns)
	g.Label("again")
	down := g.GP64() // the stride of from values
	g.IMUL3Q(operand.Imm(uint64(from)), stride, down)
	for c := range from {
		p := g.GP64()
		if c == 0 {
			g.MOVQ(src, p)
		} else {
			g.IMUL3Q(operand.Imm(uint64(c)), stride, p)
			g.ADDQ(src, p)
		}
		var v []reg.VecVirtual
		for range from {
			v = append(v, g.load(operand.Mem{Base: p}))
			g.ADDQ(down, p)
		}
		for r, y := range t.output(v) {
			between.put(r, c, y)
		}
	}
	q := g.GP64()
	g.MOVQ(dst, q)
	for r := range t.m {
		var v []reg.VecVirtual
		for c := range from {
			v = append(v, between.get(r, c))
		}
		shift := g.load(operand.Mem{Base: bias})
		out := t.output(v)
		for _, y := range out {
			g.VADDPS(shift, y, y)
		}
		linear := g.label("linear")
		g.TESTQ(slopes, slopes)
		g.JZ(operand.LabelRef(linear))
		slope := g.load(operand.Mem{Base: slopes})
		for _, y := range out {
			g.prelu(y, slope)
		}
		g.Label(linear)
		plain := g.label("plain")
		g.TESTQ(none, none)
		g.JZ(operand.LabelRef(plain))
		p := g.GP64()
		g.LEAQ(operand.Mem{Base: q, Index: residual, Scale: 1}, p)
		for _, y := range out {
			g.VADDPS(operand.Mem{Base: p}, y, y)
			g.ADDQ(pixel, p)
		}
		g.Label(plain)
		for _, y := range out {
			g.VMOVUPS(y, operand.Mem{Base: q})
			g.ADDQ(pixel, q)
		}
		if r+1 < t.m {
			g.ADDQ(row, q)
		}
	}
	for _, p := range []reg.GPVirtual{src, dst, bias} {
		g.ADDQ(operand.Imm(uint64(4*g.width())), p)
	}
	last := g.label("last")
	g.TESTQ(slopes, slopes)
	g.JZ(operand.LabelRef(last))
	g.ADDQ(operand.Imm(uint64(4*g.width())), slopes)
	g.Label(last)
	g.DECQ(turns)
	g.JNZ(operand.LabelRef("again"))
	g.ret()
}

// The roots of F4 that are not 0 and infinity are +-root and +-1/root.
var root = math.Sqrt2

func (g *gen) copyOf(y reg.VecVirtual) reg.VecVirtual {
	c := g.vector()
	g.VMOVAPS(y, c)
	return c
}

// plusMinus gives even + f*odd and even - f*odd; even is used up.
func (g *gen) plusMinus(f operand.Op, even, odd reg.VecVirtual) (plus, minus reg.VecVirtual) {
	plus = g.copyOf(even)
	g.VFMADD231PS(f, odd, plus)
	g.VFNMADD231PS(f, odd, even)
	return plus, even
}

func (g *gen) input4(d []reg.VecVirtual) []reg.VecVirtual {
	sum, two, half := g.constant("two_and_half", 2.5), g.constant("two", 2), g.constant("half", 0.5)
	g.VFNMADD231PS(sum, d[2], d[0])
	g.VADDPS(d[4], d[0], d[0])
	g.VFNMADD231PS(sum, d[3], d[5])
	g.VADDPS(d[1], d[5], d[5])
	even, odd := g.copyOf(d[4]), g.copyOf(d[3])
	g.VFNMADD231PS(two, d[2], even)
	g.VFNMADD231PS(two, d[1], odd)
	small, smallMinus := g.plusMinus(g.constant("inverse_root", float32(1/root)), even, odd)
	g.VFNMADD231PS(half, d[2], d[4])
	g.VFNMADD231PS(half, d[1], d[3])
	large, largeMinus := g.plusMinus(g.constant("root", float32(root)), d[4], d[3])
	return []reg.VecVirtual{d[0], small, smallMinus, large, largeMinus, d[5]}
}

func (g *gen) filter4(w []reg.VecVirtual) []reg.VecVirtual {
	smallEven, largeEven := g.vector(), g.vector()
	g.VMULPS(g.constant("minus_two_thirds", -2.0/3), w[0], smallEven)
	g.VFMADD231PS(g.constant("minus_third", -1.0/3), w[2], smallEven)
	small, smallMinus := g.plusMinus(g.constant("minus_two_thirds_of_inverse_root", float32(-2/(3*root))), smallEven, w[1])
	g.VMULPS(g.constant("sixth", 1.0/6), w[0], largeEven)
	g.VFMADD231PS(g.constant("third", 1.0/3), w[2], largeEven)
	large, largeMinus := g.plusMinus(g.constant("sixth_of_root", float32(root/6)), largeEven, w[1])
	return []reg.VecVirtual{w[0], small, smallMinus, large, largeMinus, w[2]}
}

func (g *gen) output4(m []reg.VecVirtual) []reg.VecVirtual {
	smallSum, largeSum := g.vector(), g.vector()
	g.VADDPS(m[2], m[1], smallSum)
	g.VSUBPS(m[2], m[1], m[1])
	g.VADDPS(m[4], m[3], largeSum)
	g.VSUBPS(m[4], m[3], m[3])
	g.VADDPS(smallSum, m[0], m[0])
	g.VADDPS(largeSum, m[0], m[0])
	y1 := g.vector()
	g.VMULPS(g.constant("inverse_root", float32(1/root)), m[1], y1)
	g.VFMADD231PS(g.constant("root", float32(root)), m[3], y1)
	g.VMULPS(g.constant("half", 0.5), smallSum, smallSum)
	g.VFMADD231PS(g.constant("two", 2), largeSum, smallSum)
	g.VFMADD231PS(g.constant("inverse_root_half", float32(1/(2*root))), m[1], m[5])
	g.VFMADD231PS(g.constant("root_twice", float32(2*root)), m[3], m[5])
	return []reg.VecVirtual{m[0], y1, smallSum, m[5]}
}

func (g *gen) input2(d []reg.VecVirtual) []reg.VecVirtual {
	sum := g.vector()
	g.VSUBPS(d[2], d[0], d[0])
	g.VADDPS(d[2], d[1], sum)
	g.VSUBPS(d[1], d[2], d[2])
	g.VSUBPS(d[1], d[3], d[3])
	return []reg.VecVirtual{d[0], sum, d[2], d[3]}
}

func (g *gen) filter2(w []reg.VecVirtual) []reg.VecVirtual {
	half, even := g.constant("half", 0.5), g.vector()
	g.VADDPS(w[2], w[0], even)
	g.VMULPS(half, even, even)
	plus, minus := g.plusMinus(half, even, w[1])
	return []reg.VecVirtual{w[0], plus, minus, w[2]}
}

func (g *gen) output2(m []reg.VecVirtual) []reg.VecVirtual {
	g.VADDPS(m[1], m[0], m[0])
	g.VADDPS(m[2], m[0], m[0])
	g.VSUBPS(m[2], m[1], m[1])
	g.VADDPS(m[3], m[1], m[1])
	return []reg.VecVirtual{m[0], m[1]}
}

func (g *gen) input4Up(d []reg.VecVirtual) []reg.VecVirtual {
	four, five := g.constant("four", 4), g.constant("five", 5)
	first, one, difference := g.copyOf(d[2]), g.copyOf(d[2]), g.vector()
	g.VSUBPS(d[1], d[2], difference)
	g.VFMADD231PS(four, d[0], first)
	g.VFNMADD231PS(five, d[1], first)
	g.VFNMADD231PS(four, d[1], one)
	g.VFMADD231PS(four, d[1], d[3])
	g.VFNMADD231PS(five, d[2], d[3])
	return []reg.VecVirtual{first, one, difference, d[3]}
}

func (g *gen) filter4Up(w []reg.VecVirtual) []reg.VecVirtual {
	one, even, minus := g.vector(), g.copyOf(w[0]), g.vector()
	g.VADDPS(w[1], w[0], one)
	g.VADDPS(w[2], one, one)
	g.VMULPS(g.constant("minus_third", -1.0/3), one, one)
	g.VFMADD231PS(g.constant("four", 4), w[2], even)
	g.VADDPS(w[1], w[1], w[1])
	g.VSUBPS(w[1], even, minus)
	g.VADDPS(w[1], even, even)
	g.VMULPS(g.constant("eighth", 0.125), even, even)
	g.VMULPS(g.constant("minus_24th", -1.0/24), minus, minus)
	g.VMULPS(g.constant("quarter", 0.25), w[0], w[0])
	return []reg.VecVirtual{w[0], one, even, minus, w[2]}
}

func (g *gen) output4Up(m []reg.VecVirtual) []reg.VecVirtual {
	sum, y1, y2 := g.vector(), g.copyOf(m[1]), g.copyOf(m[1])
	g.VADDPS(m[3], m[2], sum)
	g.VSUBPS(m[3], m[2], m[2])
	g.VADDPS(m[1], m[0], m[0])
	g.VADDPS(sum, m[0], m[0])
	g.VFMADD231PS(g.constant("two", 2), m[2], y1)
	g.VFMADD231PS(g.constant("four", 4), sum, y2)
	g.VADDPS(m[1], m[4], m[4])
	g.VFMADD231PS(g.constant("eight", 8), m[2], m[4])
	return []reg.VecVirtual{m[0], y1, y2, m[4]}
}
