package sampler

import "math"

// Generator is torch.Generator on the CPU: the same seed gives the same numbers as torch.rand and
// torch.randn, called in the same order with the same sizes.
type Generator struct {
	engine mt19937
	spare  float64 // the second normal of a pair that the scalar path has drawn and not given yet
	paired bool
}

// NewGenerator is torch.Generator().manual_seed(seed); a negative seed is its two's complement.
func NewGenerator(seed uint64) *Generator {
	g := &Generator{}
	g.engine.seed(seed)
	return g
}

// Uniform fills dst as torch.rand does: 24 random bits each, in [0, 1).
func (g *Generator) Uniform(dst []float32) {
	for i := range dst {
		dst[i] = float32(g.engine.uint32()&(1<<24-1)) / (1 << 24)
	}
}

// Normal fills dst as torch.randn does. From 16 numbers on, blocks of 16 uniforms become 16 normals,
// and a last partial block is replaced by a whole one of fresh uniforms that reaches back into the
// block before it; below 16, normals come in float64 pairs and the second of a pair waits for the
// next call.
func (g *Generator) Normal(dst []float32) {
	if len(dst) < normalBlock {
		for i := range dst {
			dst[i] = float32(g.normal64())
		}
		return
	}
	g.Uniform(dst)
	for b := dst; len(b) >= normalBlock; b = b[normalBlock:] {
		boxMuller16((*[normalBlock]float32)(b))
	}
	if len(dst)%normalBlock != 0 {
		tail := dst[len(dst)-normalBlock:]
		g.Uniform(tail)
		boxMuller16((*[normalBlock]float32)(tail))
	}
}

// skipNormal leaves the generator as Normal would with a slice of n.
func (g *Generator) skipNormal(n int) {
	switch {
	case n < normalBlock:
		for range n {
			g.normal64()
		}
	case n%normalBlock == 0:
		g.engine.skip(n)
	default:
		g.engine.skip(n + normalBlock)
	}
}

// normal64 is the polar form of Box and Muller (1958) in float64.
func (g *Generator) normal64() float64 {
	if g.paired {
		g.paired = false
		return g.spare
	}
	u1, u2 := g.uniform64(), g.uniform64()
	r := math.Sqrt(-2 * math.Log1p(-u2))
	sin, cos := math.Sincos(2 * math.Pi * u1)
	g.spare, g.paired = r*sin, true
	return r * cos
}

func (g *Generator) uniform64() float64 {
	hi := uint64(g.engine.uint32())
	bits := hi<<32 | uint64(g.engine.uint32())
	return float64(bits&(1<<53-1)) / (1 << 53)
}

// NoiseFunc fills dst with the draw-th noise of a run; draw 0 is the start. It must give the same
// numbers whenever it is asked for the same draw.
type NoiseFunc func(draw int, dst []float32)

// Noise is the draw-th torch.randn(n) of a generator seeded with seed, counted from 0: what the
// reference draws for the start latents (0) and for the k-th step that adds noise (k).
func Noise(seed uint64, draw, n int) []float32 {
	dst := make([]float32, n)
	NewSource(seed).Draw(draw, dst)
	return dst
}

// Source gives the values of Noise and remembers where it is, so that draws of one size in order
// cost no repetition. It is for one goroutine.
type Source struct {
	seed uint64
	gen  *Generator
	n    int // the size gen was used with
	next int // the draw gen gives next
}

// NewSource is a source at the start of seed's sequence.
func NewSource(seed uint64) *Source { return &Source{seed: seed} }

// Draw fills dst with Noise(seed, draw, len(dst)); it is a NoiseFunc.
func (s *Source) Draw(draw int, dst []float32) {
	if s.gen == nil || s.n != len(dst) || s.next > draw {
		s.gen, s.n, s.next = NewGenerator(s.seed), len(dst), 0
	}
	for ; s.next < draw; s.next++ {
		s.gen.skipNormal(s.n)
	}
	s.gen.Normal(dst)
	s.next = draw + 1
}
