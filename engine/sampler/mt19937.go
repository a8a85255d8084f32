package sampler

// The Mersenne Twister (Matsumoto and Nishimura, 1998), which torch's CPU generator is built on.
const (
	mtLen    = 624
	mtShift  = 397
	mtMatrix = 0x9908b0df
	mtUpper  = 0x80000000
	mtLower  = 0x7fffffff
)

type mt19937 struct {
	state [mtLen]uint32
	next  int
}

// seed sets the state from the low 32 bits, which are all that torch's engine keeps of a seed.
func (m *mt19937) seed(seed uint64) {
	s := uint32(seed)
	for i := range m.state {
		m.state[i] = s
		s = 1812433253*(s^s>>30) + uint32(i) + 1
	}
	m.next = mtLen
}

func (m *mt19937) uint32() uint32 {
	if m.next == mtLen {
		m.refill()
	}
	y := m.state[m.next]
	m.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

func (m *mt19937) refill() {
	for i := range m.state {
		y := m.state[i]&mtUpper | m.state[(i+1)%mtLen]&mtLower
		x := m.state[(i+mtShift)%mtLen] ^ y>>1
		if y&1 != 0 {
			x ^= mtMatrix
		}
		m.state[i] = x
	}
	m.next = 0
}

// skip advances by n outputs.
func (m *mt19937) skip(n int) {
	for n > mtLen-m.next {
		n -= mtLen - m.next
		m.refill()
	}
	m.next += n
}
