package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
	"github.com/mmcloughlin/avo/x86"
)

// gen is one file being written.
type gen struct {
	*build.Context
	isa       string // AVX2 or AVX512, the end of the functions' names: the width of all vectors of the helpers below
	constants map[string]constant
	labels    int

	current   string                    // the function being written
	registers map[string]reg.VecVirtual // its constants in AVX-512
	prologues map[string][]ir.Node      // by function: what fills them
}

type constant struct {
	mem  operand.Mem
	bits uint32
}

func (g *gen) wide() bool { return g.isa == "AVX512" }

// width is the number of float32 in a vector.
func (g *gen) width() int {
	if g.wide() {
		return 16
	}
	return 8
}

func (g *gen) vector() reg.VecVirtual {
	if g.wide() {
		return g.ZMM()
	}
	return g.YMM()
}

// function starts one; pointers become registers by their names.
func (g *gen) function(name, signature, doc string) {
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr(signature)
	g.Doc(name + " " + doc)
	g.current, g.registers = name, map[string]reg.VecVirtual{}
}

// arg loads a pointer or an integer.
func (g *gen) arg(name string) reg.GPVirtual {
	r := g.GP64()
	g.Load(g.Param(name), r)
	return r
}

// broadcastArg loads a float32 into all lanes.
func (g *gen) broadcastArg(name string) reg.VecVirtual {
	y := g.vector()
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

// constant is a float32 in all lanes, and not to be written: in AVX2 in read-only memory, as 16 registers would not hold
// what exp needs; in AVX-512 in a register that is filled where the function begins, as the linker aligns read-only
// memory to 32 bytes and every other vector of it would lie in two cache lines.
func (g *gen) constant(name string, value float32) operand.Op {
	return g.bits(name, math.Float32bits(value))
}

func (g *gen) bits(name string, bits uint32) operand.Op {
	lanes := g.width()
	if g.wide() {
		lanes = 1
	}
	m := g.datum(name, bits, lanes)
	if !g.wide() {
		return m
	}
	z, ok := g.registers[name]
	if !ok {
		z = g.vector()
		fill, err := x86.VBROADCASTSS(m, z)
		if err != nil {
			panic(err)
		}
		g.registers[name] = z
		g.prologues[g.current] = append(g.prologues[g.current], fill)
	}
	return z
}

// datum is so many times the same word of read-only memory.
func (g *gen) datum(name string, bits uint32, times int) operand.Mem {
	c, ok := g.constants[name]
	if !ok {
		c = constant{g.StaticGlobal(name), bits}
		g.DataAttributes(rodata)
		for range times {
			g.AppendDatum(operand.U32(bits))
		}
		g.constants[name] = c
	}
	if c.bits != bits {
		panic("two values for constant " + name)
	}
	return c.mem
}

// load returns memory or a constant in a new register.
func (g *gen) load(m operand.Op) reg.VecVirtual {
	y := g.vector()
	g.VMOVUPS(m, y)
	return y
}

func (g *gen) zero() reg.VecVirtual {
	y := g.vector()
	g.VXORPS(y, y, y)
	return y
}

// lanes are the neighbouring elements of a vector, or the last ones of a slice, fewer than a vector, under a mask.
type lanes struct {
	g     *gen
	index reg.GPVirtual
	ahead int          // elements beyond the index
	mask  reg.Register // nil if all are live; a vector in AVX2, an opmask in AVX-512
}

func (l lanes) at(p reg.Register) operand.Mem {
	return operand.Mem{Base: p, Index: l.index, Scale: 4, Disp: 4 * l.ahead}
}

// loadTo reads from the slice that starts at p; lanes that are not live are zero.
func (l lanes) loadTo(p, y reg.Register) { l.loadFrom(l.at(p), y) }

// loadFrom is loadTo from wherever m is.
func (l lanes) loadFrom(m operand.Mem, y reg.Register) {
	switch {
	case l.mask == nil:
		l.g.VMOVUPS(m, y)
	case l.g.wide():
		l.g.VMOVUPS_Z(m, l.mask, y)
	default:
		l.g.VMASKMOVPS(m, l.mask, y)
	}
}

// load is loadTo with a new register.
func (l lanes) load(p reg.Register) reg.VecVirtual {
	y := l.g.vector()
	l.loadTo(p, y)
	return y
}

func (l lanes) store(y, p reg.Register) { l.storeAt(y, l.at(p)) }

// storeAt is store to wherever m is.
func (l lanes) storeAt(y reg.Register, m operand.Mem) {
	switch {
	case l.mask == nil:
		l.g.VMOVUPS(y, m)
	case l.g.wide():
		l.g.VMOVUPS(y, l.mask, m)
	default:
		l.g.VMASKMOVPS(y, l.mask, m)
	}
}

// maskRegister is what the masks of lanes are in.
func (g *gen) maskRegister() reg.Register {
	if g.wide() {
		return g.K()
	}
	return g.YMM()
}

// choose sets dst to live where the mask is set and to dead elsewhere.
func (g *gen) choose(mask, live, dead, dst reg.Register) {
	if g.wide() {
		g.VBLENDMPS(live, dead, mask, dst)
	} else {
		g.VBLENDVPS(mask, live, dead, dst)
	}
}

// keep clears the lanes of y where the mask is not set.
func (g *gen) keep(mask, y reg.Register) {
	if g.wide() {
		g.VMOVAPS_Z(y, mask, y)
	} else {
		g.VANDPS(mask, y, y)
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
		again, done, step := g.label("again"), g.label("done"), operand.Imm(uint64(g.width()*count))
		var l []lanes
		for i := range count {
			l = append(l, lanes{g: g, index: index, ahead: g.width() * i})
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

// mask has the first n lanes set, n being at least 1 and less than a vector; n is used up. In AVX-512 it is 2^n - 1, in
// AVX2 a window into eight ones before eight zeros.
func (g *gen) mask(n reg.GPVirtual) reg.Register {
	if g.wide() {
		bits, k := g.GP32(), g.maskRegister()
		g.MOVQ(n, reg.RCX) // the one register that shifts
		g.MOVL(operand.U32(1), bits)
		g.SHLL(reg.CL, bits)
		g.DECL(bits)
		g.KMOVW(bits, k)
		return k
	}
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
	start, y := g.GP64(), g.maskRegister()
	g.LEAQ(window.mem, start)
	g.NEGQ(n)
	g.VMOVUPS(operand.Mem{Base: start, Index: n, Scale: 4, Disp: 32}, y)
	return y
}

// returnFold returns what fold gives from the function.
func (g *gen) returnFold(v []reg.VecVirtual, op func(a, b, dst operand.Op)) {
	x := g.fold(v, op)
	result, err := g.ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	g.VMOVSS(x, result.Addr) // Context.Store would take an SSE move
	g.ret()
}

// fold reduces a power of two of vectors, then the lanes 16, 8, 4, 2, 1.
func (g *gen) fold(v []reg.VecVirtual, op func(a, b, dst operand.Op)) reg.Register {
	for n := len(v) / 2; n > 0; n /= 2 {
		for i := range n {
			op(v[i+n], v[i], v[i])
		}
	}
	x, y, t := v[0].AsX(), v[0].AsY(), g.XMM()
	if g.wide() {
		high := g.YMM()
		g.VEXTRACTF64X4(operand.Imm(1), v[0], high)
		op(high, y, y)
	}
	g.VEXTRACTF128(operand.Imm(1), y, t)
	op(t, x, x)
	g.VPERMILPS(operand.Imm(0x4e), x, t)
	op(t, x, x)
	g.VPERMILPS(operand.Imm(0xb1), x, t)
	op(t, x, x)
	return x
}
