package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The functions here mirror exp, swish and gelu in activation_generic.go, where the method and its sources are told.
// MAXPS and MINPS return their second source (the first operand in Go's order) if one is NaN: it is always x, so NaN passes.

const expLow, expHigh = -87.3, 88.8

// Each takes several vectors and goes through them in step: one alone is a chain of dependent operations of 70 cycles
// and more, and the processor looks ahead too little to find its neighbours. Two are 1.4 times as fast on a Zen 1.

// exp replaces every x by e^x.
func (g *gen) exp(xs ...reg.VecVirtual) {
	low, high := g.load(g.constant("exp_low", expLow)), g.load(g.constant("exp_high", expHigh))
	for _, x := range xs {
		g.VMAXPS(x, low, x)
		g.VMINPS(x, high, x)
	}
	shifter, powers, ns := g.constant("exp_shifter", 0x1.8p23), g.fresh(xs), g.fresh(xs)
	for i, x := range xs {
		g.VMOVUPS(shifter, powers[i])
		g.VFMADD231PS(g.constant("log2e", 1.44269504088896341), x, powers[i])
	}
	for i := range xs {
		g.VSUBPS(shifter, powers[i], ns[i])
	}
	for i, x := range xs {
		g.VFNMADD231PS(g.constant("ln2_high", 0.693359375), ns[i], x)
		g.VFNMADD231PS(g.constant("ln2_low", -2.12194440e-4), ns[i], x)
	}
	ps := g.polynomial(xs, "exp", 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
	one := g.constant("one", 1)
	for i, x := range xs {
		square := ns[i]
		g.VMULPS(x, x, square)
		g.VFMADD213PS(x, square, ps[i])
		g.VADDPS(one, ps[i], ps[i])
	}
	for i, x := range xs {
		g.VPSLLD(operand.Imm(23), powers[i], powers[i])
		g.VPADDD(one, powers[i], powers[i]) // the bits of 1.0 are the exponent's bias
		g.VMULPS(powers[i], ps[i], x)
	}
}

// fresh returns a new register for every x.
func (g *gen) fresh(xs []reg.VecVirtual) []reg.VecVirtual {
	ys := make([]reg.VecVirtual, len(xs))
	for i := range ys {
		ys[i] = g.YMM()
	}
	return ys
}

// polynomial returns, for every x, the polynomial with the coefficients c, highest power first.
func (g *gen) polynomial(xs []reg.VecVirtual, name string, c ...float32) []reg.VecVirtual {
	at := func(i int) operand.Mem { return g.constant(name+"_p"+string(rune('0'+len(c)-1-i)), c[i]) }
	ps := g.fresh(xs)
	for _, p := range ps {
		g.VMOVUPS(at(0), p)
	}
	for power := 1; power < len(c); power++ {
		for i, x := range xs {
			g.VFMADD213PS(at(power), x, ps[i])
		}
	}
	return ps
}

// swish replaces every x by x / (1 + exp(-beta x)).
func (g *gen) swish(name string, beta float32, xs ...reg.VecVirtual) {
	es := g.fresh(xs)
	for i, x := range xs {
		g.VMULPS(g.constant("minus_beta_"+name, -beta), x, es[i])
	}
	g.exp(es...)
	for i, x := range xs {
		g.VADDPS(g.constant("one", 1), es[i], es[i])
		g.VDIVPS(es[i], x, x)
	}
}

// gelu replaces every x by max(x, 0) - |x|/2 * erfc(|x|/sqrt 2).
func (g *gen) gelu(xs ...reg.VecVirtual) {
	ys, limit := g.fresh(xs), g.load(g.constant("gelu_limit", 6.5))
	for i, x := range xs {
		g.VANDPS(g.bits("magnitude", 0x7fffffff), x, ys[i])
		g.VMINPS(ys[i], limit, ys[i])
	}
	es := g.polynomial(ys, "gelu", -1.25254184288e-8, 4.08224537645e-7, -5.6437345752e-6, 4.18599753898e-5,
		-1.56311195668e-4, -7.68079857739e-5, 4.90905595451e-3, -3.64141242366e-2, -3.18285500998e-1, -7.97887386543e-1)
	for i, y := range ys {
		g.VMULPS(y, es[i], es[i])
	}
	g.exp(es...)
	zero := g.zero()
	for i, x := range xs {
		g.VMULPS(g.constant("half", 0.5), ys[i], ys[i])
		g.VMAXPS(x, zero, x)
		g.VFNMADD231PS(es[i], ys[i], x)
	}
}

// acts are kernel.Act's values in order, by the suffix of the functions that apply them.
var acts = []struct {
	suffix string
	apply  func(g *gen, xs ...reg.VecVirtual)
}{
	{"None", func(*gen, ...reg.VecVirtual) {}},
	{"SiLU", func(g *gen, xs ...reg.VecVirtual) { g.swish("silu", 1, xs...) }},
	{"GELU", (*gen).gelu},
	{"QuickGELU", func(g *gen, xs ...reg.VecVirtual) { g.swish("quick_gelu", 1.702, xs...) }},
}
