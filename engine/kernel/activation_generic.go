package kernel

import "math"

// The constants and the order of operations here are those of _asm/math.go, which does the same with fused
// multiply-adds. Comparisons are false for NaN, which so passes through.

const log2e = 1.44269504088896341

// power2 is 2^x for x from -127, where it is zero, to 128, where it is infinite, and within 2 units in the last place
// between -126 and 128: x = n + r with |r| <= 1/2, 2^r by a polynomial, our own minimax fit (power2_fit.py in _asm: 1.05
// units), and n added to the bits of its exponent. Between -127 and -126 the result is some denormal.
// A NaN stays one if the low nine bits of its payload are zero, as in those that arithmetic makes.
func power2(x float32) float32 {
	const shifter = 0x1.8p23 // adding it rounds to an integer, left in the lowest bits
	t := x + shifter
	r := x - (t - shifter)
	p := float32(0.00132257250192)
	p = p*r + 0.00967177328973
	p = p*r + 0.055508915201
	p = p*r + 0.240222368787
	p = p*r + 0.693146829102
	p = p*r + 1
	return math.Float32frombits(math.Float32bits(p) + math.Float32bits(t)<<23)
}

// swish is x * sigmoid(beta x) with slope -beta log2(e). As a quotient it meets neither an overflow nor a denormal: the power is
// infinite where the quotient would become one.
func swish(x, slope float32) float32 {
	e := slope * x
	if e < -127 {
		e = -127
	}
	if e > 128 {
		e = 128
	}
	return x / (1 + power2(e))
}

// gelu is x * Phi(x) = max(x, 0) - |x|/2 * erfc(|x|/sqrt 2), which cancels nowhere, with erfc(y/sqrt 2) = exp(y P(y)), so
// that erfc/2 is 2^(y P(y) log2(e) - 1). P is our own fit by gelu_fit.py in _asm (weighted minimax over 0..6.5, degree 8):
// 2.7e-8 absolute in the result, 3e-5 relative where x < -4. At 6.5 erfc is 8e-11, and y stops there.
func gelu(x float32) float32 {
	y := math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) // |x|
	if y > 6.5 {
		y = 6.5
	}
	p := float32(9.29253495648e-08)
	p = p*y + -2.49180498287e-06
	p = p*y + 2.57038595566e-05
	p = p*y + -0.000100541319351
	p = p*y + -0.000381343859642
	p = p*y + 0.00742946385056
	p = p*y + -0.0527852243436
	p = p*y + -0.459098326576
	p = p*y + -1.15112027814
	p = p*y - 1
	tail := y * power2(p)
	if x < 0 {
		return -tail
	}
	return x - tail
}

func (a Act) of(x float32) float32 {
	switch a {
	case SiLU:
		return swish(x, -log2e)
	case GELU:
		return gelu(x)
	case QuickGELU:
		return swish(x, -1.702*log2e)
	}
	return x
}

func finishGeneric(dst, acc, bias, shift, residual []float32, act Act) {
	for i, v := range acc {
		if bias != nil {
			v += bias[i]
		}
		if shift != nil {
			v += shift[i]
		}
		v = act.of(v)
		if residual != nil {
			v += residual[i]
		}
		dst[i] = v
	}
}

func activateGeneric(dst, x []float32, act Act) {
	for i, v := range x {
		dst[i] = act.of(v)
	}
}

func gegluGeneric(dst, x, gate []float32) {
	for i, g := range gate {
		dst[i] = x[i] * gelu(g)
	}
}
