package main

import (
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The instructions of AVX512_BF16, which neither avo nor Go's assembler knows: encode writes their bytes.
const (
	dotProduct = "VDPBF16PS"      // dst += pairs of one operand times pairs of the other
	narrowTwo  = "VCVTNE2PS2BF16" // the first operand behind the second, as bfloat16
	narrowOne  = "VCVTNEPS2BF16"  // half a vector
)

// bf16 writes the products of tile over pairs of bfloat16, and what makes pairs.
func bf16(g *gen) {
	for panels := 1; panels <= 2; panels++ {
		for m := 1; m <= tileRows; m++ {
			product{gen: g, rows: m, panels: panels, pairs: true}.write()
		}
	}
	g.narrowRow()
	g.pairRows()
	g.pairNarrow()
}

// extended adds an instruction on vectors of 512 bits, whose last operand is its result.
func (g *gen) extended(opcode string, inputs []operand.Op, operands ...operand.Op) {
	g.Instruction(&ir.Instruction{
		Opcode: opcode, Operands: operands, Inputs: inputs, Outputs: operands[len(operands)-1:], ISA: []string{"AVX512_BF16"},
	})
}

// narrowRow rounds neighbouring values, sixteen a vector.
func (g *gen) narrowRow() {
	g.function("narrowRowBF16", "func(dst *uint16, src *float32, n int)", "rounds to nearest even.")
	dst, src, n := g.arg("dst"), g.arg("src"), g.arg("n")
	g.each(n, 4, func(l []lanes) {
		for _, l := range l {
			z, half := l.load(src), g.ZMM()
			g.extended(narrowOne, []operand.Op{z}, z, half)
			to := l.at(dst)
			to.Scale, to.Disp = to.Scale/2, to.Disp/2
			if l.mask == nil {
				g.VMOVUPS(half.AsY(), to)
			} else {
				g.VMOVDQU16(half.AsY(), l.mask, to)
			}
		}
	})
	g.ret()
}

// interleaved has the lanes of the lower half of a vector of words between those of the upper half.
func (g *gen) interleaved() reg.VecVirtual {
	const name = "words"
	order, ok := g.constants[name]
	if !ok {
		order.mem = g.StaticGlobal(name)
		g.DataAttributes(rodata)
		for i := range 16 {
			g.AppendDatum(operand.U32(i | (16+i)<<16))
		}
		g.constants[name] = order
	}
	z := g.ZMM()
	g.VMOVDQU32(order.mem, z)
	return z
}

// pairRows rounds rows of 16 columns and joins two at a time.
func (g *gen) pairRows() {
	g.function("pairRowsBF16", "func(dst, src *float32, stride, rows int)", "is PairPanel for an even, positive number of rows.")
	dst, src, stride, rows, order := g.arg("dst"), g.arg("src"), g.arg("stride"), g.arg("rows"), g.interleaved()
	g.SHLQ(operand.Imm(2), stride)
	g.Label("again")
	first, second := g.load(operand.Mem{Base: src}), g.load(operand.Mem{Base: src, Index: stride, Scale: 1})
	g.extended(narrowTwo, []operand.Op{first, second}, first, second, second)
	g.VPERMW(second, order, second)
	g.VMOVUPS(second, operand.Mem{Base: dst})
	g.LEAQ(operand.Mem{Base: src, Index: stride, Scale: 2}, src)
	g.ADDQ(operand.Imm(64), dst)
	g.SUBQ(operand.Imm(2), rows)
	g.JNZ(operand.LabelRef("again"))
	g.ret()
}

// pairNarrow joins rows that are bfloat16 already.
func (g *gen) pairNarrow() {
	g.function("pairNarrowBF16", "func(dst *float32, src *uint16, rows int)", "is PairPanelBF16 for an even, positive number of rows.")
	dst, src, rows, order := g.arg("dst"), g.arg("src"), g.arg("rows"), g.interleaved()
	g.Label("again")
	z := g.ZMM()
	g.VPERMW(operand.Mem{Base: src}, order, z)
	g.VMOVUPS(z, operand.Mem{Base: dst})
	g.ADDQ(operand.Imm(64), src)
	g.ADDQ(operand.Imm(64), dst)
	g.SUBQ(operand.Imm(2), rows)
	g.JNZ(operand.LabelRef("again"))
	g.ret()
}

// encode replaces the instructions of AVX512_BF16, whose registers are allocated, by their bytes.
func encode(f *ir.Function) {
	var nodes []ir.Node
	for _, n := range f.Nodes {
		i, ok := n.(*ir.Instruction)
		if !ok {
			nodes = append(nodes, n)
			continue
		}
		switch i.Opcode {
		case dotProduct:
			nodes = append(nodes, evex(0x52, 2, number(i.Operands[0]), number(i.Operands[1]), number(i.Operands[2]))...)
		case narrowTwo:
			nodes = append(nodes, evex(0x72, 3, number(i.Operands[0]), number(i.Operands[1]), number(i.Operands[2]))...)
		case narrowOne:
			nodes = append(nodes, evex(0x72, 2, number(i.Operands[0]), 0, number(i.Operands[1]))...)
		default:
			nodes = append(nodes, n)
		}
	}
	f.Nodes = nodes
}

func number(r operand.Op) int { return int(r.(reg.Physical).PhysicalIndex()) }

// evex is an instruction of the map 0F38 on three registers of 512 bits: prefix is 2 for F3, 3 for F2 (Intel, Software
// Developer's Manual 2.7). Of an instruction without a second operand that is 0.
func evex(opcode, prefix byte, third, second, dst int) []ir.Node {
	inverted := func(n, bit, to int) byte { return byte(^n>>bit&1) << to }
	p0 := inverted(dst, 3, 7) | inverted(third, 4, 6) | inverted(third, 3, 5) | inverted(dst, 4, 4) | 2
	p1 := byte(^second&15)<<3 | 4 | prefix
	p2 := 0x40 | inverted(second, 4, 3)
	modrm := byte(0xc0 | dst&7<<3 | third&7)
	return []ir.Node{
		&ir.Instruction{Opcode: "LONG", Operands: []operand.Op{operand.U32(uint32(p2)<<24 | uint32(p1)<<16 | uint32(p0)<<8 | 0x62)}},
		&ir.Instruction{Opcode: "WORD", Operands: []operand.Op{operand.U16(uint16(modrm)<<8 | uint16(opcode))}},
	}
}
