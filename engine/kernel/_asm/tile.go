package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The tile: kernel.TileRows and kernel.TileCols.
const tileRows, tileCols = 6, 16

// tile writes a function for every number of rows, and in AVX-512 for one panel and for two. All sum a row in the same
// order: a row's result does not depend on its tile, nor on how many panels are multiplied at once.
func tile(g *gen) {
	most := 1
	if g.wide() {
		most = 2
	}
	for panels := 1; panels <= most; panels++ {
		for m := 1; m <= tileRows; m++ {
			product{gen: g, rows: m, panels: panels}.write()
		}
	}
}

// product is one such function.
type product struct {
	*gen
	rows, panels int
	pairs        bool // of bfloat16, in the place of float32
}

func (g product) write() {
	suffix := g.isa
	if g.pairs {
		suffix = "BF16"
	}
	g.function(fmt.Sprintf("tile%dx%d%s", g.rows, tileCols*g.panels, suffix),
		"func(out *float32, stride, apart int, rows **float32, taps, k int, panels *float32, step, add int)",
		fmt.Sprintf("is Multiply for %d rows and %d columns.", g.rows, tileCols*g.panels))
	rows, taps, panel, step := g.arg("rows"), g.arg("taps"), g.arg("panels"), g.arg("step")
	// With AVX-512 the sums of one panel would wait for the latency of FMA, so even and odd k have their own.
	sets := 1
	if g.wide() {
		sets = 2
	}
	sums := make([][]reg.VecVirtual, sets)
	for i := range sums {
		sums[i] = g.zeros(g.rows * g.vectors())
	}
	row, index, n := make([]reg.GPVirtual, g.rows), g.GP64(), g.GP64()
	g.SHLQ(operand.Imm(2), step)

	g.Label("tap")
	for r := range row {
		row[r] = g.GP64()
		g.MOVQ(operand.Mem{Base: rows, Disp: 8 * r}, row[r])
	}
	g.XORQ(index, index)
	steps := func(count int) { // of k: a load for every vector of the panels, and for every row a broadcast and as many multiply-adds
		for s := range count {
			columns, x := g.columns(panel, step, s), g.vector()
			for r := range row {
				g.VBROADCASTSS(operand.Mem{Base: row[r], Index: index, Scale: 4, Disp: 4 * s}, x)
				for i, y := range columns {
					g.multiplyAdd(y, x, sums[s%sets][r*len(columns)+i])
				}
			}
		}
		g.ADDQ(operand.U32(4*tileCols*count), panel)
		g.ADDQ(operand.Imm(uint64(count)), index)
	}
	g.Load(g.Param("k"), n)
	g.SUBQ(operand.Imm(4), n)
	g.JLT(operand.LabelRef("rest"))
	g.Label("four")
	steps(4)
	g.SUBQ(operand.Imm(4), n)
	g.JGE(operand.LabelRef("four"))
	g.Label("rest")
	for _, count := range []int{2, 1} {
		skip := g.label("skip")
		g.TESTQ(operand.U32(uint32(count)), n) // n is four less than what is left, which leaves these bits as they are
		g.JZ(operand.LabelRef(skip))
		steps(count)
		g.Label(skip)
	}
	g.ADDQ(operand.Imm(8*tileRows), rows)
	g.DECQ(taps)
	g.JNZ(operand.LabelRef("tap"))
	if g.wide() {
		for i, odd := range sums[1] {
			g.VADDPS(odd, sums[0][i], sums[0][i])
		}
	}
	g.finish(sums[0])
}

// multiplyAdd is sum += x * y.
func (g product) multiplyAdd(y, x, sum reg.VecVirtual) {
	if g.pairs {
		g.extended(dotProduct, []operand.Op{y, x, sum}, y, x, sum)
	} else {
		g.VFMADD231PS(y, x, sum)
	}
}

// vectors is how many a row of the tile has.
func (g product) vectors() int { return tileCols * g.panels / g.width() }

// columns loads step s of the panels.
func (g product) columns(panel, step reg.GPVirtual, s int) []reg.VecVirtual {
	var ys []reg.VecVirtual
	for p := range g.panels {
		for c := 0; c < tileCols; c += g.width() {
			at := operand.Mem{Base: panel, Disp: 4 * (tileCols*s + c)}
			if p > 0 {
				at.Index, at.Scale = step, 1
			}
			ys = append(ys, g.load(at))
		}
	}
	return ys
}

// finish writes the sums or adds them.
func (g product) finish(sums []reg.VecVirtual) {
	out, stride, apart, add := g.arg("out"), g.arg("stride"), g.arg("apart"), g.arg("add")
	g.SHLQ(operand.Imm(2), stride)
	g.SHLQ(operand.Imm(2), apart)
	each := func(f func(at operand.Mem, sum reg.VecVirtual)) {
		q := g.GP64()
		g.MOVQ(out, q)
		for r := range g.rows {
			for i := range g.vectors() {
				at := operand.Mem{Base: q, Disp: 4 * g.width() * i}
				if perPanel := tileCols / g.width(); i >= perPanel {
					at.Index, at.Scale, at.Disp = apart, 1, 4*g.width()*(i-perPanel)
				}
				f(at, sums[r*g.vectors()+i])
			}
			g.ADDQ(stride, q)
		}
	}
	g.TESTQ(add, add)
	g.JZ(operand.LabelRef("store"))
	each(func(at operand.Mem, sum reg.VecVirtual) { g.VADDPS(at, sum, sum) })
	g.Label("store")
	each(func(at operand.Mem, sum reg.VecVirtual) { g.VMOVUPS(sum, at) })
	g.ret()
}
