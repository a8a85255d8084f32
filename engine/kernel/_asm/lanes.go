package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// gen is one file being written.
type gen struct {
	*build.Context
	constants map[string]constant
	labels    int
}

type constant struct {
	mem  operand.Mem
	bits uint32
}

// function starts one; pointers become registers by their names.
func (g *gen) function(name, signature, doc string) {
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr(signature)
	g.Doc(name + " " + doc)
}

// arg loads a pointer or an integer.
func (g *gen) arg(name string) reg.GPVirtual {
	r := g.GP64()
	g.Load(g.Param(name), r)
	return r
}

// broadcastArg loads a float32 into all lanes.
func (g *gen) broadcastArg(name string) reg.VecVirtual {
	y := g.YMM()
	b, err := g.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	g.VBROADCASTSS(b.Addr, y)
	return y
}

// rodata is the attributes of constants.
const rodata = attr.RODATA | attr.NOPTR

func (g *gen) ret() {
	g.VZEROUPPER()
	g.RET()
}

func (g *gen) label(name string) string {
	g.labels++
	return fmt.Sprintf("%s%d", name, g.labels)
}

// constant is a float32 in eight lanes of read-only memory: 16 registers would not hold what exp needs.
func (g *gen) constant(name string, value float32) operand.Mem {
	return g.bits(name, math.Float32bits(value))
}

func (g *gen) bits(name string, bits uint32) operand.Mem {
	c, ok := g.constants[name]
	if !ok {
		c = constant{g.StaticGlobal(name), bits}
		g.DataAttributes(rodata)
		for range 8 {
			g.AppendDatum(operand.U32(bits))
		}
		g.constants[name] = c
	}
	if c.bits != bits {
		panic("two values for constant " + name)
	}
	return c.mem
}

// load returns a constant in a register.
func (g *gen) load(m operand.Mem) reg.VecVirtual {
	y := g.YMM()
	g.VMOVUPS(m, y)
	return y
}

func (g *gen) zero() reg.VecVirtual {
	y := g.YMM()
	g.VXORPS(y, y, y)
	return y
}

// lanes are eight neighbouring elements, or the last 1 to 7 of a slice under a mask.
type lanes struct {
	g     *gen
	index reg.GPVirtual
	ahead int          // elements beyond the index
	mask  reg.Register // nil if all eight are live
}

func (l lanes) at(p reg.Register) operand.Mem {
	return operand.Mem{Base: p, Index: l.index, Scale: 4, Disp: 4 * l.ahead}
}

// load reads from the slice that starts at p; lanes that are not live are zero.
func (l lanes) load(p reg.Register) reg.VecVirtual {
	y := l.g.YMM()
	if l.mask == nil {
		l.g.VMOVUPS(l.at(p), y)
	} else {
		l.g.VMASKMOVPS(l.at(p), l.mask, y)
	}
	return y
}

func (l lanes) store(y, p reg.Register) {
	if l.mask == nil {
		l.g.VMOVUPS(y, l.at(p))
	} else {
		l.g.VMASKMOVPS(y, l.mask, l.at(p))
	}
}

// addIfAny adds the elements of the slice at p to ys, unless p is nil. The branch goes the same way all along the slice.
func (g *gen) addIfAny(l []lanes, p reg.GPVirtual, ys []reg.VecVirtual) {
	skip := g.label("skip")
	g.TESTQ(p, p)
	g.JZ(operand.LabelRef(skip))
	for i, y := range ys {
		g.VADDPS(l[i].load(p), y, y)
	}
	g.Label(skip)
}

// each writes a loop of body over n elements: turns of several vectors, then of one, then the tail under a mask. n is
// used up. An element's arithmetic is the same in all three.
func (g *gen) each(n reg.GPVirtual, several int, body func(l []lanes)) {
	index := g.eachWhole(n, body, several, 1)
	end := g.label("end")
	g.TESTQ(n, n)
	g.JZ(operand.LabelRef(end))
	body([]lanes{{g: g, index: index, mask: g.mask(n)}})
	g.Label(end)
}

// eachWhole is each without the tail, for turns of so many vectors: n becomes what is left, and the result the index of its
// first.
func (g *gen) eachWhole(n reg.GPVirtual, body func(l []lanes), counts ...int) reg.GPVirtual {
	index := g.GP64()
	g.XORQ(index, index)
	for _, count := range counts {
		again, done, step := g.label("again"), g.label("done"), operand.Imm(uint64(8*count))
		var l []lanes
		for i := range count {
			l = append(l, lanes{g: g, index: index, ahead: 8 * i})
		}
		g.CMPQ(n, step)
		g.JLT(operand.LabelRef(done))
		g.Label(again)
		body(l)
		g.ADDQ(step, index)
		g.SUBQ(step, n)
		g.CMPQ(n, step)
		g.JGE(operand.LabelRef(again))
		g.Label(done)
	}
	return index
}

// loadAll and storeAll move one vector for each of l.
func loadAll(l []lanes, p reg.Register) []reg.VecVirtual {
	var ys []reg.VecVirtual
	for _, l := range l {
		ys = append(ys, l.load(p))
	}
	return ys
}

func storeAll(l []lanes, ys []reg.VecVirtual, p reg.Register) {
	for i, l := range l {
		l.store(ys[i], p)
	}
}

// mask has the first n lanes set, n being 1 to 7; n is used up. It is a window into eight ones before eight zeros.
func (g *gen) mask(n reg.GPVirtual) reg.VecVirtual {
	const name = "mask_window"
	window, ok := g.constants[name]
	if !ok {
		window.mem = g.StaticGlobal(name)
		g.DataAttributes(rodata)
		for i := range 16 {
			g.AppendDatum(operand.U32([]uint32{^uint32(0), 0}[i/8]))
		}
		g.constants[name] = window
	}
	start, y := g.GP64(), g.YMM()
	g.LEAQ(window.mem, start)
	g.NEGQ(n)
	g.VMOVUPS(operand.Mem{Base: start, Index: n, Scale: 4, Disp: 32}, y)
	return y
}

// returnFold reduces a power of two of vectors, then the lanes 8, 4, 2, 1, and returns the result from the function.
func (g *gen) returnFold(v []reg.VecVirtual, op func(a, b, dst operand.Op)) {
	for n := len(v) / 2; n > 0; n /= 2 {
		for i := range n {
			op(v[i+n], v[i], v[i])
		}
	}
	x, t := v[0].AsX(), g.XMM()
	g.VEXTRACTF128(operand.Imm(1), v[0], t)
	op(t, x, x)
	g.VPERMILPS(operand.Imm(0x4e), x, t)
	op(t, x, x)
	g.VPERMILPS(operand.Imm(0xb1), x, t)
	op(t, x, x)
	result, err := g.ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	g.VMOVSS(x, result.Addr) // Context.Store would take an SSE move
	g.ret()
}
