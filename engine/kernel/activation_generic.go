package kernel

import "math"

// The constants and the order of operations here are those of _asm/math.go, which does the same with fused
// multiply-adds. Comparisons are false for NaN, which so passes through.

// Below expLow exp(x) is not a normal number; above expHigh it is infinite.
const expLow, expHigh = -87.3, 88.8

// exp is e^x within 2 units in the last place, with x clamped to [expLow, expHigh]: x = n ln 2 + r with |r| <= ln(2)/2,
// 2^n by its bits, e^r by the polynomial of Cephes (Moshier, expf.c). From 88.37 on n is 128 and the result infinite.
func exp(x float32) float32 {
	const (
		log2e        = 1.44269504088896341
		ln2Hi, ln2Lo = 0.693359375, -2.12194440e-4 // ln2Hi*n is exact
		shifter      = 0x1.8p23                    // adding it rounds to an integer, left in the lowest bits
	)
	if x < expLow {
		x = expLow
	}
	if x > expHigh {
		x = expHigh
	}
	t := x*log2e + shifter
	n := t - shifter
	r := x - n*ln2Hi - n*ln2Lo
	p := float32(1.9875691500e-4)
	p = p*r + 1.3981999507e-3
	p = p*r + 8.3334519073e-3
	p = p*r + 4.1665795894e-2
	p = p*r + 1.6666665459e-1
	p = p*r + 5.0000001201e-1
	p = p*(r*r) + r + 1
	return p * math.Float32frombits(math.Float32bits(t)<<23+0x3f800000)
}

// swish is x * sigmoid(beta x). As a quotient it meets neither an overflow nor a denormal: exp is infinite where the
// quotient would become one.
func swish(x, beta float32) float32 { return x / (1 + exp(-beta*x)) }

// gelu is x * Phi(x) = max(x, 0) - |x|/2 * erfc(|x|/sqrt 2), which cancels nowhere, with erfc(y/sqrt 2) = exp(y P(y)).
// P is our own fit by gelu_fit.py in _asm (weighted minimax over 0..6.5, degree 9): 6e-9 absolute in the result, 6e-6
// relative where x < -4. At 6.5 erfc is 8e-11, and y stops there.
func gelu(x float32) float32 {
	y := math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) // |x|
	if y > 6.5 {
		y = 6.5
	}
	p := float32(-1.25254184288e-8)
	p = p*y + 4.08224537645e-7
	p = p*y + -5.6437345752e-6
	p = p*y + 4.18599753898e-5
	p = p*y + -1.56311195668e-4
	p = p*y + -7.68079857739e-5
	p = p*y + 4.90905595451e-3
	p = p*y + -3.64141242366e-2
	p = p*y + -3.18285500998e-1
	p = p*y + -7.97887386543e-1
	tail := y * 0.5 * exp(p*y)
	if x < 0 {
		return -tail
	}
	return x - tail
}

func (a Act) of(x float32) float32 {
	switch a {
	case SiLU:
		return swish(x, 1)
	case GELU:
		return gelu(x)
	case QuickGELU:
		return swish(x, 1.702)
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
