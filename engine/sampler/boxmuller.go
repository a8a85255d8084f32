package sampler

import "math"

const normalBlock = 16

// boxMuller16 turns 16 uniforms in [0, 1) into 16 normals: element j is the radius and element j+8
// the angle of a pair. torch does this eight lanes at a time with float32 polynomials from the Cephes
// library (Moshier) compiled with fused multiply-add; the same operations in the same order give the
// same bits here.
func boxMuller16(u *[normalBlock]float32) {
	for j := range normalBlock / 2 {
		radius := sqrt32(-2 * log32(1-u[j]))
		sin, cos := sincos32(2 * math.Pi * u[j+normalBlock/2])
		u[j], u[j+normalBlock/2] = radius*cos, radius*sin
	}
}

// log32 is Cephes' logf for normal x > 0: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), log m by a
// polynomial in m-1, and ln 2 in two parts.
func log32(x float32) float32 {
	bits := math.Float32bits(x)
	e := float32(int32(bits>>23) - 126)
	m := math.Float32frombits(bits&^0x7f800000 | 0x3f000000)
	if m < math.Sqrt2/2 {
		e--
		m += m - 1
	} else {
		m--
	}
	z := float32(m * m)
	y := float32(7.0376836292e-2)
	for _, c := range [...]float32{
		-1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
		-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
	} {
		y = fma32(y, m, c)
	}
	y = float32(y * m)
	y = fma32(y, z, float32(e*-2.12194440e-4))
	y = fma32(z, -0.5, y)
	return fma32(e, 0.693359375, m+y)
}

// sincos32 is Cephes' sinf and cosf for 0 <= x < 8192: x is reduced to an octant with pi/4 in three
// parts, and one polynomial each for sine and cosine.
func sincos32(x float32) (sin, cos float32) {
	octant := (int32(float32(x*1.27323954473516)) + 1) &^ 1
	q := float32(octant)
	x = fma32(q, -0.78515625, x)
	x = fma32(q, -2.4187564849853515625e-4, x)
	x = fma32(q, -3.77489497744594108e-8, x)
	z := float32(x * x)

	c := fma32(2.443315711809948e-5, z, -1.388731625493765e-3)
	c = fma32(c, z, 4.166664568298827e-2)
	c = float32(c * z)
	c = fma32(c, z, float32(z*-0.5)) + 1

	s := fma32(-1.9515295891e-4, z, 8.3321608736e-3)
	s = fma32(s, z, -1.6666654611e-1)
	s = float32(s * z)
	s = fma32(s, x, x)

	if octant&2 != 0 {
		s, c = c, s
	}
	if octant&4 != 0 {
		s = -s
	}
	if (octant-2)&4 == 0 {
		c = -c
	}
	return s, c
}

// fma32 is a*b+c rounded once. The product is exact in float64; the sum is rounded to odd there (its
// last bit tells that something was cut), so that the second rounding sees on which side it lies.
func fma32(a, b, c float32) float32 {
	p, q := float64(a)*float64(b), float64(c)
	sum := p + q
	back := sum - p
	cut := (p - (sum - back)) + (q - back)
	if bits := math.Float64bits(sum); cut != 0 && bits&1 == 0 {
		if cut > 0 == (sum > 0) {
			bits++
		} else {
			bits--
		}
		sum = math.Float64frombits(bits)
	}
	return float32(sum)
}
