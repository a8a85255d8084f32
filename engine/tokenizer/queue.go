package tokenizer

// turn is a merge that waits: its rank, then its place in the word, so that turns sort as numbers.
type turn uint64

func newTurn(rank uint32, at int32) turn { return turn(rank)<<32 | turn(uint32(at)) }

func (t turn) rank() uint32 { return uint32(t >> 32) }
func (t turn) at() int32    { return int32(uint32(t)) }

// queue is a binary heap, the smallest turn first. container/heap would allocate for every turn.
type queue []turn

func (q *queue) push(t turn) {
	*q = append(*q, t)
	h := *q
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if h[parent] <= h[i] {
			return
		}
		h[parent], h[i] = h[i], h[parent]
		i = parent
	}
}

// pop takes the smallest turn from a queue that is not empty.
func (q *queue) pop() turn {
	h := *q
	first, n := h[0], len(h)-1
	h[0] = h[n]
	h = h[:n]
	*q = h
	for i := 0; ; {
		child := 2*i + 1
		if child >= n {
			return first
		}
		if child+1 < n && h[child+1] < h[child] {
			child++
		}
		if h[i] <= h[child] {
			return first
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
