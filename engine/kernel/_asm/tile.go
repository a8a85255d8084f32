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

const allRows, columns = 6, 16

func tileRows(g *gen, m int) {
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

// tileAVX512 writes the same for vectors of 16, one for a row of the panel.
func tileAVX512(g *gen) {
	for m := 1; m <= allRows; m++ {
		tileRowsAVX512(g, m)
	}
}

func tileRowsAVX512(g *gen, m int) {
	g.function(fmt.Sprintf("tile%dAVX512", m), "func(out *float32, rows **float32, taps, k int, panel *float32)",
		fmt.Sprintf("is Tile for %d rows.", m))
	rows, taps, k, panel := g.arg("rows"), g.arg("taps"), g.arg("k"), g.arg("panel")
	// Six sums would wait for the latency of FMA, so even and odd k have their own, whatever m is.
	var sums [2][]reg.VecVirtual
	for range m {
		sums[0], sums[1] = append(sums[0], g.zero()), append(sums[1], g.zero())
	}
	row, n := make([]reg.GPVirtual, m), g.GP64()

	g.Label("tap")
	for r := range row {
		row[r] = g.GP64()
		g.MOVQ(operand.Mem{Base: rows, Disp: 8 * r}, row[r])
	}
	steps := func(count int) { // of k: a load and m multiply-adds that broadcast from memory, each
		for s := range count {
			y := g.ZMM()
			g.VMOVUPS(operand.Mem{Base: panel, Disp: 4 * columns * s}, y)
			for r, sum := range sums[s%2] {
				g.VFMADD231PS_BCST(operand.Mem{Base: row[r], Disp: 4 * s}, y, sum)
			}
		}
		g.ADDQ(operand.U32(4*columns*count), panel)
		for _, p := range row {
			g.ADDQ(operand.Imm(uint64(4*count)), p)
		}
	}
	g.MOVQ(k, n)
	g.SHRQ(operand.Imm(2), n)
	g.JZ(operand.LabelRef("rest"))
	g.Label("four")
	steps(4)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("four"))
	g.Label("rest")
	for _, count := range []int{2, 1} {
		skip := g.label("skip")
		g.TESTQ(operand.U32(uint32(count)), k)
		g.JZ(operand.LabelRef(skip))
		steps(count)
		g.Label(skip)
	}
	g.ADDQ(operand.Imm(8*allRows), rows)
	g.DECQ(taps)
	g.JNZ(operand.LabelRef("tap"))

	out := g.arg("out")
	for r := range row {
		g.VADDPS(sums[1][r], sums[0][r], sums[0][r])
		g.VMOVUPS(sums[0][r], operand.Mem{Base: out, Disp: 4 * columns * r})
	}
	g.ret()
}
