package device

import (
	"slices"
	"sync"
)

// Tapes remembers the last tapes of a network by their shapes, so that a shape that comes again has the same tape, and a
// device what it keeps for it. The zero value is empty. Safe for concurrent use.
type Tapes[Shape comparable] struct {
	mu   sync.Mutex
	last []shaped[Shape] // used last comes last
}

type shaped[Shape comparable] struct {
	shape Shape
	tape  *Tape
}

// maxTapes is more than the shapes that a server is asked for in turn; a tape of a large network has some 100 kB.
const maxTapes = 8

// Of is the tape of a shape, recorded if it is not remembered. The error is record's, and is not remembered.
func (t *Tapes[Shape]) Of(shape Shape, record func() (*Tape, error)) (*Tape, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.IndexFunc(t.last, func(s shaped[Shape]) bool { return s.shape == shape })
	if at < 0 {
		tape, err := record()
		if err != nil {
			return nil, err
		}
		t.last = append(t.last, shaped[Shape]{shape, tape})
		if at = len(t.last) - 1; at == maxTapes {
			t.last, at = slices.Delete(t.last, 0, 1), at-1
		}
	}
	used := t.last[at]
	t.last = append(slices.Delete(t.last, at, at+1), used)
	return used.tape, nil
}
