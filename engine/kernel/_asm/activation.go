package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// together is the number of vectors that go through an activation side by side where x can be read again.
const together = 4

func activation(g *gen) {
	for _, act := range acts {
		g.function("finish"+act.suffix+g.isa, "func(dst, acc, bias, shift, residual *float32, n int)",
			"is Finish with "+act.suffix+"; bias, shift and residual may be nil.")
		dst, acc, bias, shift, residual, n := g.arg("dst"), g.arg("acc"), g.arg("bias"), g.arg("shift"), g.arg("residual"), g.arg("n")
		g.each(n, g.sideBySide(act.several), func(l []lanes) {
			ys := loadAll(l, acc)
			g.addIfAny(l, bias, ys)
			g.addIfAny(l, shift, ys)
			var chains []chain
			for _, y := range ys {
				chains = append(chains, act.chain(g, y, y))
			}
			weave(chains...)
			g.addIfAny(l, residual, ys)
			storeAll(l, ys, dst)
		})
		g.ret()
	}
	for _, act := range acts {
		g.function("activate"+act.suffix+g.isa, "func(dst, x *float32, n int)", "is Activate with "+act.suffix+".")
		dst, x, n := g.arg("dst"), g.arg("x"), g.arg("n")
		g.eachChain(n, together, func(l lanes, y reg.VecVirtual) chain {
			return join(chain{func() { l.loadTo(x, y) }}, act.chain(g, y, l.again(x, y)), chain{func() { l.store(y, dst) }})
		})
		g.ret()
	}
	g.function("geglu"+g.isa, "func(dst, x, gate *float32, n int)", "is GEGLU.")
	dst, x, gate, n := g.arg("dst"), g.arg("x"), g.arg("gate"), g.arg("n")
	g.eachChain(n, together, func(l lanes, y reg.VecVirtual) chain {
		return join(chain{func() { l.loadTo(gate, y) }}, g.gelu(y, l.again(gate, y)), chain{
			func() { g.VMULPS(l.load(x), y, y) },
			func() { l.store(y, dst) },
		})
	})
	g.ret()
}

// sideBySide is how many vectors go through an activation in AVX-512, which has the registers, or several.
func (g *gen) sideBySide(several int) int {
	if g.wide() {
		return together
	}
	return several
}

// eachChain is each with a chain for every vector, which it may hold in y.
func (g *gen) eachChain(n reg.GPVirtual, several int, body func(l lanes, y reg.VecVirtual) chain) {
	g.each(n, several, func(l []lanes) {
		var chains []chain
		for _, l := range l {
			chains = append(chains, body(l, g.vector()))
		}
		weave(chains...)
	})
}

// again is where the elements at p that y was loaded with can be read a second time: only all of a vector in memory.
func (l lanes) again(p reg.Register, y reg.VecVirtual) operand.Op {
	if l.mask == nil {
		return l.at(p)
	}
	return y
}
