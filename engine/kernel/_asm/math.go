package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The functions here mirror power2, swish and gelu in attention_generic.go and activation_generic.go, where the method and
// its sources are told. MAXPS and MINPS return their second source (the first operand in Go's order) if one is NaN: where
// it is x, NaN passes.

// A chain is the operations on one vector in order, each of which needs the result of the one before.
type chain []func()

// join is one chain behind the other.
func join(chains ...chain) chain { return slices.Concat(chains...) }

// weave writes chains side by side, each three operations behind the one before: one alone would wait for the latency of
// every operation, 70 cycles and more, and the processor looks ahead too little to find its neighbours. In step they
// would all want the multipliers at the same time, and then the adders. Four fill 16 registers if constants are operands
// in memory, and 32 with the constants; of 0 to 7 operations three was the best on a Zen 1.
func weave(chains ...chain) {
	const lag = 3
	for round, more := 0, true; more; round++ {
		more = false
		for i, c := range chains {
			if k := round - i*lag; k < len(c) {
				more = true
				if k >= 0 {
					c[k]()
				}
			}
		}
	}
}

// power2 replaces x, from -127 to 128, by 2^x. AVX-512 has an instruction each for what x exceeds its floor by and for the product
// with the floor's power; without shifts, of which it does one at a time. The polynomial is within 0.99 units (power2_fit.py).
func (g *gen) power2(x reg.VecVirtual) chain {
	if g.wide() {
		p := g.vector()
		return join(g.fraction2(x, p), chain{func() { g.VSCALEFPS(x, p, x) }})
	}
	shifter, power, p := g.constant("shifter", 0x1.8p23), g.vector(), g.vector()
	return join(chain{
		func() { g.VADDPS(shifter, x, power) },
		func() { g.VSUBPS(shifter, power, p) },
		func() { g.VSUBPS(p, x, x) },
	}, g.polynomial(x, p, "power2", 0.00132257250192, 0.00967177328973, 0.055508915201, 0.240222368787, 0.693146829102, 1), chain{
		func() { g.VPSLLD(operand.Imm(23), power, power) },
		func() { g.VPADDD(power, p, x) },
	})
}

// fraction2 sets p to 2^(x - floor x), for VSCALEFPS, which multiplies by the power of the floor.
func (g *gen) fraction2(x, p reg.VecVirtual) chain {
	const down = 1 // is how to round
	rest := g.vector()
	return join(chain{
		func() { g.VREDUCEPS(operand.Imm(down), x, rest) },
	}, g.polynomial(rest, p, "power2", 0.00188530879528, 0.0089733536005, 0.0558359456829, 0.240152802094, 0.693152471962, 1))
}

// polynomial sets p to the polynomial in x with the coefficients c, highest power first. Of long ones AVX-512 broadcasts
// the coefficients from memory where they are needed: registers are for the others.
func (g *gen) polynomial(x, p reg.VecVirtual, name string, c ...float32) chain {
	var steps chain
	for k, value := range c {
		name := fmt.Sprintf("%s_p%d", name, len(c)-1-k)
		if g.wide() && len(c) > 6 {
			m := g.datum(name, math.Float32bits(value), 1)
			if k == 0 {
				steps = append(steps, func() { g.VBROADCASTSS(m, p) })
			} else {
				steps = append(steps, func() { g.VFMADD213PS_BCST(m, x, p) })
			}
			continue
		}
		m := g.constant(name, value)
		if k == 0 {
			steps = append(steps, func() { g.VMOVUPS(m, p) })
		} else {
			steps = append(steps, func() { g.VFMADD213PS(m, x, p) })
		}
	}
	return steps
}

// swish replaces x by x / (1 + 2^(slope x)). The quotient is NaN if x is, whatever its power. The division is one on
// purpose: on a Zen 1 it holds up the multipliers for 8 cycles, but a reciprocal made exact by three multiply-adds was
// slower still, by a fifth.
func (g *gen) swish(name string, slope float32, x reg.VecVirtual) chain {
	e := g.vector()
	return join(chain{
		func() { g.VMULPS(g.constant("slope_"+name, slope), x, e) },
		func() { g.VMAXPS(g.constant("power2_low", -127), e, e) },
		func() { g.VMINPS(g.constant("power2_high", 128), e, e) },
	}, g.power2(e), chain{
		func() { g.VADDPS(g.constant("one", 1), e, e) },
		func() { g.VDIVPS(e, x, x) },
	})
}

// gelu replaces x by max(x, 0) - |x|/2 * erfc(|x|/sqrt 2). The maximum, and with it NaN, comes from again at the end: x
// itself, or the memory it was read from, which saves a register.
func (g *gen) gelu(x reg.VecVirtual, again operand.Op) chain {
	y, e := g.vector(), g.vector()
	return join(chain{
		func() { g.VANDPS(g.bits("magnitude", 0x7fffffff), x, y) },
		func() { g.VMINPS(g.constant("gelu_limit", 6.5), y, y) },
	}, g.polynomial(y, e, "gelu", 9.29253495648e-08, -2.49180498287e-06, 2.57038595566e-05, -0.000100541319351, -0.000381343859642, 0.00742946385056,
		-0.0527852243436, -0.459098326576, -1.15112027814, -1), g.power2(e), chain{
		func() { g.VMAXPS(again, g.zero(), x) },
		func() { g.VFNMADD231PS(e, y, x) },
	})
}

const log2e = 1.44269504088896341

// acts are kernel.Act's values in order, by the suffix of the functions that apply them.
var acts = []struct {
	suffix  string
	several int // vectors that 16 registers hold side by side where x cannot be read again
	chain   func(g *gen, x reg.VecVirtual, again operand.Op) chain
}{
	{"None", 4, func(*gen, reg.VecVirtual, operand.Op) chain { return nil }},
	{"SiLU", 4, func(g *gen, x reg.VecVirtual, _ operand.Op) chain { return g.swish("silu", -log2e, x) }},
	{"GELU", 3, (*gen).gelu},
	{"QuickGELU", 4, func(g *gen, x reg.VecVirtual, _ operand.Op) chain { return g.swish("quick_gelu", -1.702*log2e, x) }},
}
