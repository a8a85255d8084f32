package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func pack(g *gen) {
	packBy(g, 1)
	packBy(g, 2)
	packBy(g, 4)
}

// packBy writes the pack kernel for elements of size bytes. A block is 8 elements of 16 rows, or 4 of 4 bytes: 16 bytes of a
// row (8 of single bytes) are loaded, transposed, and each element's 16 values stored at its place in the panel, which
// offsets gives for the 8*taps elements of 8 inputs.
func packBy(g *gen, size int) {
	g.function(fmt.Sprintf("packU%dAVX2", 8*size), fmt.Sprintf("func(dst, src *uint%d, stride, groups, taps int, offsets *int)", 8*size),
		fmt.Sprintf("is pack for 16 rows, stride bytes apart, and 8*groups inputs of %d bytes.", size))
	dst, stride, groups := g.arg("dst"), g.arg("stride"), g.arg("groups")
	var rows [4]reg.GPVirtual // 0, 4, 8 and 12
	rows[0] = g.arg("src")
	for i := 1; i < 4; i++ {
		rows[i] = g.GP64()
		g.LEAQ(operand.Mem{Base: rows[i-1], Index: stride, Scale: 4}, rows[i])
	}
	three := g.GP64()
	g.LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, three)
	row := func(r int) operand.Mem {
		switch base := rows[r/4]; r % 4 {
		case 0:
			return operand.Mem{Base: base}
		case 3:
			return operand.Mem{Base: base, Index: three, Scale: 1}
		default:
			return operand.Mem{Base: base, Index: stride, Scale: uint8(r % 4)}
		}
	}
	offsets, n, at := g.GP64(), g.GP64(), g.GP64()

	g.Label("group")
	g.Load(g.Param("offsets"), offsets)
	g.Load(g.Param("taps"), n)
	if size == 4 {
		g.ADDQ(n, n)
	}
	g.Label("block")
	elements, bytes := 8, 16
	switch size {
	case 1:
		bytes = 8
		var v []reg.VecVirtual
		for r := range 8 {
			v = append(v, g.XMM())
			other := g.XMM()
			g.VMOVQ(row(r), v[r])
			g.VMOVQ(row(r+8), other)
			g.VPUNPCKLBW(other, v[r], v[r])
		}
		for e, x := range g.shuffle(v, g.VPUNPCKLBW, g.VPUNPCKHBW) {
			g.MOVQ(operand.Mem{Base: offsets, Disp: 8 * e}, at)
			g.VMOVDQU(x, operand.Mem{Base: dst, Index: at, Scale: 1})
		}
	case 2:
		for e, y := range g.shuffle(g.halves(row, 0, 8), g.VPUNPCKLWD, g.VPUNPCKHWD) {
			g.MOVQ(operand.Mem{Base: offsets, Disp: 8 * e}, at)
			g.VMOVDQU(y, operand.Mem{Base: dst, Index: at, Scale: 1})
		}
	case 4:
		elements = 4
		for first := 0; first < 16; first += 8 {
			for e, y := range g.shuffle(g.halves(row, first, 4), g.VPUNPCKLDQ, g.VPUNPCKHDQ) {
				g.MOVQ(operand.Mem{Base: offsets, Disp: 8 * e}, at)
				g.VMOVDQU(y, operand.Mem{Base: dst, Index: at, Scale: 1, Disp: 4 * first})
			}
		}
	}
	for _, r := range rows {
		g.ADDQ(operand.Imm(uint64(bytes)), r)
	}
	g.ADDQ(operand.Imm(uint64(8*elements)), offsets)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("block"))
	g.ADDQ(operand.U32(8*16*size), dst)
	g.DECQ(groups)
	g.JNZ(operand.LabelRef("group"))
	g.ret()
}

// halves loads 16 bytes of each of 2n rows: row first+i into the lower and row first+n+i into the upper half of the i-th.
func (g *gen) halves(row func(int) operand.Mem, first, n int) []reg.VecVirtual {
	var v []reg.VecVirtual
	for i := range n {
		y := g.YMM()
		g.VMOVDQU(row(first+i), y.AsX())
		g.VINSERTI128(operand.Imm(1), row(first+n+i), y, y)
		v = append(v, y)
	}
	return v
}

// shuffle transposes n vectors of n elements (in each half): interleaving the first half of the vectors with the second,
// as one shuffles cards, turns the bits of an element's place by one, and log2 n such turns swap row and column.
func (g *gen) shuffle(v []reg.VecVirtual, low, high func(ops ...operand.Op)) []reg.VecVirtual {
	for turns := len(v); turns > 1; turns /= 2 {
		var next []reg.VecVirtual
		for i := range len(v) / 2 {
			a, b := v[i], v[i+len(v)/2]
			h := g.like(a)
			high(b, a, h)
			low(b, a, a)
			next = append(next, a, h)
		}
		v = next
	}
	return v
}

func (g *gen) like(v reg.VecVirtual) reg.VecVirtual {
	if v.Size() == 16 {
		return g.XMM()
	}
	return g.YMM()
}
