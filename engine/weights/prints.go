package weights

import (
	"cmp"
	"errors"
	"hash/crc32"
	"slices"
	"sync"
)

// ErrChanged is wrapped by the Error of a read that found other bytes than the same read before it.
var ErrChanged = errors.New("the file has changed")

// Prints are the checksums of what was read of files, piece by piece, taken in passing: CRC-32, which costs a load from the page
// cache some 4 % (CRC-32C 8 %). They tell files that were damaged or exchanged, and not those that somebody made to look alike. Safe for
// concurrent use.
type Prints struct {
	mu     sync.Mutex
	pieces map[piece]uint32
}

// piece is what one read gave.
type piece struct {
	file   string
	offset int64
	bytes  int
}

// check adds a piece. It reports false if the piece was there, with other bytes.
func (p *Prints) check(file string, offset int64, data []byte) bool {
	at, sum := piece{file, offset, len(data)}, crc32.ChecksumIEEE(data)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pieces == nil {
		p.pieces = map[piece]uint32{}
	}
	before, there := p.pieces[at]
	p.pieces[at] = sum
	return !there || before == sum
}

// Sums gives the CRC-32 of the stored bytes of tensors, however they were cut when they were read, and reports whether
// all of them have been read whole.
func (s *Set) Sums(p *Prints, names []string) ([]uint32, bool) {
	p.mu.Lock()
	pieces := make([]piece, 0, len(p.pieces))
	for at := range p.pieces {
		pieces = append(pieces, at)
	}
	p.mu.Unlock()
	slices.SortFunc(pieces, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.offset, b.offset), cmp.Compare(b.bytes, a.bytes)) // the largest first
	})
	sums := make([]uint32, len(names))
	for i, name := range names {
		f := s.owners[name]
		if f == nil {
			return nil, false
		}
		e := f.tensors[name]
		file, begin, end := e.place(f)
		for at := begin; at < end; {
			n, found := slices.BinarySearchFunc(pieces, piece{file: file, offset: at}, func(a, b piece) int {
				return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.offset, b.offset))
			})
			if !found || pieces[n].bytes == 0 {
				return nil, false
			}
			p.mu.Lock()
			sums[i] = joinSums(sums[i], p.pieces[pieces[n]], int64(pieces[n].bytes))
			p.mu.Unlock()
			at += int64(pieces[n].bytes)
		}
	}
	return sums, true
}

// joinSums is the CRC-32 of two texts, one behind the other, from theirs and the length of the second.
func joinSums(first, second uint32, bytes int64) uint32 {
	shift, power := uint32(1)<<31, uint32(1)<<23 // x^0 and x^8
	for ; bytes > 0; bytes >>= 1 {
		if bytes&1 != 0 {
			shift = multiply(shift, power)
		}
		power = multiply(power, power)
	}
	return multiply(shift, first) ^ second
}

// multiply multiplies polynomials modulo that of CRC-32, the lowest power in the highest bit.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry != 0 {
			b ^= crc32.IEEE
		}
	}
	return product
}
