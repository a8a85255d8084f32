package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// tile writes a function for every number of rows. All sum a row in the same order: more accumulators would speed up
// one row a little, and make a row's result depend on its tile.
func tile(g *gen) {
	for m := 1; m <= 6; m++ {
		tileRows(g, m)
	}
}

func tileRows(g *gen, m int) {
	const allRows, columns = 6, 16
	g.function(fmt.Sprintf("tile%dAVX2", m), "func(out *float32, rows **float32, taps, k int, panel *float32)",
		fmt.Sprintf("is Tile for %d rows.", m))
	rows, taps, k, panel := g.arg("rows"), g.arg("taps"), g.arg("k"), g.arg("panel")
	var sums [][2]reg.VecVirtual
	for range m {
		sums = append(sums, [2]reg.VecVirtual{g.zero(), g.zero()})
	}
	row, index, n := make([]reg.GPVirtual, m), g.GP64(), g.GP64()

	g.Label("tap")
	for r := range row {
		row[r] = g.GP64()
		g.MOVQ(operand.Mem{Base: rows, Disp: 8 * r}, row[r])
	}
	g.XORQ(index, index)
	steps := func(count int) { // of k: two loads, m broadcasts and 2m multiply-adds each
		for s := range count {
			left, right, x := g.YMM(), g.YMM(), g.YMM()
			g.VMOVUPS(operand.Mem{Base: panel, Disp: 4 * columns * s}, left)
			g.VMOVUPS(operand.Mem{Base: panel, Disp: 4*columns*s + 32}, right)
			for r := range row {
				g.VBROADCASTSS(operand.Mem{Base: row[r], Index: index, Scale: 4, Disp: 4 * s}, x)
				g.VFMADD231PS(left, x, sums[r][0])
				g.VFMADD231PS(right, x, sums[r][1])
			}
		}
		g.ADDQ(operand.U32(4*columns*count), panel)
		g.ADDQ(operand.Imm(uint64(count)), index)
		g.DECQ(n)
	}
	g.MOVQ(k, n)
	g.SHRQ(operand.Imm(2), n)
	g.JZ(operand.LabelRef("rest"))
	g.Label("four")
	steps(4)
	g.JNZ(operand.LabelRef("four"))
	g.Label("rest")
	g.MOVQ(k, n)
	g.ANDQ(operand.Imm(3), n)
	g.JZ(operand.LabelRef("next"))
	g.Label("one")
	steps(1)
	g.JNZ(operand.LabelRef("one"))
	g.Label("next")
	g.ADDQ(operand.Imm(8*allRows), rows)
	g.DECQ(taps)
	g.JNZ(operand.LabelRef("tap"))

	out := g.arg("out")
	for r := range row {
		for half, sum := range sums[r] {
			g.VMOVUPS(sum, operand.Mem{Base: out, Disp: 4 * (columns*r + 8*half)})
		}
	}
	g.ret()
}
