package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The functions here mirror power2, swish and gelu in attention_generic.go and activation_generic.go, where the method and
// its sources are told. MAXPS and MINPS return their second source (the first operand in Go's order) if one is NaN: it is
// always x, so NaN passes.

// Each takes several vectors and goes through them in step: one alone is a chain of dependent operations of 70 cycles
// and more, and the processor looks ahead too little to find its neighbours. A constant is loaded once for all of them:
// as operands in memory they would keep the two load units of a Zen 1 busy for longer than all the rest takes.

// power2 replaces every x, from -127 to 128, by 2^x.
func (g *gen) power2(xs ...reg.VecVirtual) {
	shifter, powers, ps := g.load(g.constant("shifter", 0x1.8p23)), g.fresh(xs), g.fresh(xs)
	for i, x := range xs {
		g.VADDPS(shifter, x, powers[i])
	}
	for i, x := range xs {
		g.VSUBPS(shifter, powers[i], ps[i])
		g.VSUBPS(ps[i], x, x)
	}
	g.polynomial(xs, ps, "power2", 0.00132257250192, 0.00967177328973, 0.055508915201, 0.240222368787, 0.693146829102, 1)
	for i, x := range xs {
		g.VPSLLD(operand.Imm(23), powers[i], powers[i])
		g.VPADDD(powers[i], ps[i], x)
	}
}

// fresh returns a new register for every x.
func (g *gen) fresh(xs []reg.VecVirtual) []reg.VecVirtual {
	ys := make([]reg.VecVirtual, len(xs))
	for i := range ys {
		ys[i] = g.vector()
	}
	return ys
}

// polynomial sets every p to the polynomial in x with the coefficients c, highest power first.
func (g *gen) polynomial(xs, ps []reg.VecVirtual, name string, c ...float32) {
	for k, value := range c {
		y := g.load(g.constant(fmt.Sprintf("%s_p%d", name, len(c)-1-k), value))
		for i, x := range xs {
			if k == 0 {
				g.VMOVAPS(y, ps[i])
			} else {
				g.VFMADD213PS(y, x, ps[i])
			}
		}
	}
}

// swish replaces every x by x / (1 + 2^(slope x)).
func (g *gen) swish(name string, slope float32, xs ...reg.VecVirtual) {
	es, factor := g.fresh(xs), g.load(g.constant("slope_"+name, slope))
	for i, x := range xs {
		g.VMULPS(factor, x, es[i])
	}
	low, high := g.load(g.constant("power2_low", -127)), g.load(g.constant("power2_high", 128))
	for _, e := range es {
		g.VMAXPS(e, low, e)
		g.VMINPS(e, high, e)
	}
	g.power2(es...)
	one := g.load(g.constant("one", 1))
	for i, x := range xs {
		g.VADDPS(one, es[i], es[i])
		g.VDIVPS(es[i], x, x)
	}
}

// gelu replaces every x by max(x, 0) - |x|/2 * erfc(|x|/sqrt 2).
func (g *gen) gelu(xs ...reg.VecVirtual) {
	ys, limit, magnitude := g.fresh(xs), g.load(g.constant("gelu_limit", 6.5)), g.load(g.bits("magnitude", 0x7fffffff))
	for i, x := range xs {
		g.VANDPS(magnitude, x, ys[i])
		g.VMINPS(ys[i], limit, ys[i])
	}
	es := g.fresh(xs)
	g.polynomial(ys, es, "gelu", -1.80703590523e-08, 5.8894351603e-07, -8.14218788373e-06, 6.03911789066e-05, -0.000225509386826,
		-0.000110810500177, 0.00708227068102, -0.0525344764545, -0.459188913877, -1.15110817575, -1)
	g.power2(es...)
	zero := g.zero()
	for i, x := range xs {
		g.VMAXPS(x, zero, x)
		g.VFNMADD231PS(es[i], ys[i], x)
	}
}

const log2e = 1.44269504088896341

// acts are kernel.Act's values in order, by the suffix of the functions that apply them.
var acts = []struct {
	suffix string
	apply  func(g *gen, xs ...reg.VecVirtual)
}{
	{"None", func(*gen, ...reg.VecVirtual) {}},
	{"SiLU", func(g *gen, xs ...reg.VecVirtual) { g.swish("silu", -log2e, xs...) }},
	{"GELU", (*gen).gelu},
	{"QuickGELU", func(g *gen, xs ...reg.VecVirtual) { g.swish("quick_gelu", -1.702*log2e, xs...) }},
}
