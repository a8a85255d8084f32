package tokenizer

// endOfWord marks the last piece of a word in the vocabulary.
const endOfWord = "</w>"

type pair struct{ left, right int32 }

type merge struct {
	rank uint32 // the lowest is done first
	id   int32  // what the pair becomes
}

// bytePairs is the model: the token of every byte, and which neighbours become one.
type bytePairs struct {
	inner  [256]int32 // the token of a byte within a word
	last   [256]int32 // the token of a byte that ends a word
	merges map[pair]merge
}

// byteRunes is the character that stands for each byte in the vocabulary: itself where Latin-1 has
// something visible, the next free one from U+0100 on elsewhere.
func byteRunes() [256]rune {
	var table [256]rune
	next := rune(0x100)
	for b := range table {
		switch {
		case '!' <= b && b <= '~', 0xa1 <= b && b <= 0xac, 0xae <= b && b <= 0xff:
			table[b] = rune(b)
		default:
			table[b] = next
			next++
		}
	}
	return table
}

// merger applies the merges to one word after another. It keeps its scratch and is not shared.
type merger struct {
	*bytePairs
	symbols []symbol
	queue   queue
}

// symbol is a piece of a word, in a linked list: merging two drops the right one.
type symbol struct {
	id         int32
	prev, next int32 // none at the ends
}

const none = -1

// appendWord appends the tokens of a word that is not empty: the merge of the lowest rank first, the
// leftmost of equals. The queue keeps a word of n bytes at n log n; a merge whose symbols have changed
// since it was queued is skipped when its turn comes.
func (m *merger) appendWord(ids []int32, word string) []int32 {
	m.symbols, m.queue = m.symbols[:0], m.queue[:0]
	for i := range len(word) {
		m.symbols = append(m.symbols, symbol{id: m.inner[word[i]], prev: int32(i) - 1, next: int32(i) + 1})
	}
	end := len(word) - 1
	m.symbols[end].id, m.symbols[end].next = m.last[word[end]], none
	for i := range end {
		m.consider(int32(i))
	}
	for len(m.queue) > 0 {
		turn := m.queue.pop()
		if g, ok := m.mergeAt(turn.at()); ok && g.rank == turn.rank() {
			m.join(turn.at(), g.id)
		}
	}
	for i := int32(0); i != none; i = m.symbols[i].next {
		ids = append(ids, m.symbols[i].id)
	}
	return ids
}

// mergeAt is the merge of a symbol and the next, if there is one. A dropped symbol has no next.
func (m *merger) mergeAt(i int32) (merge, bool) {
	next := m.symbols[i].next
	if next == none {
		return merge{}, false
	}
	g, ok := m.merges[pair{m.symbols[i].id, m.symbols[next].id}]
	return g, ok
}

func (m *merger) consider(i int32) {
	if g, ok := m.mergeAt(i); ok {
		m.queue.push(newTurn(g.rank, i))
	}
}

// join makes symbol i and the next one symbol.
func (m *merger) join(i, id int32) {
	left := &m.symbols[i]
	right := &m.symbols[left.next]
	left.id, left.next = id, right.next
	right.next = none
	if left.next != none {
		m.symbols[left.next].prev = i
	}
	m.consider(i)
	if left.prev != none {
		m.consider(left.prev)
	}
}
