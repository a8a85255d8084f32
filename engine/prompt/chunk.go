package prompt

import (
	"fmt"
	"slices"
)

// Tokenizer turns texts into the ids of tokens.
type Tokenizer interface {
	// Start, End and Pad are the ids before a text, behind it, and behind that up to the length that the encoder takes.
	Start() int32
	End() int32
	Pad() int32
	// Words are the ids of a text, without start and end. The error is the tokenizer's own.
	Words(text string) ([]int32, error)
}

// Embedding is a textual inversion (Gal et al. 2022, arXiv 2208.01618): where a text has its tokens in a row, its vectors stand in
// place of theirs.
type Embedding struct {
	Name    string
	Tokens  []int32 // of its word, one or more
	Vectors int
}

// Chunk is as much of a prompt as a text encoder takes at once.
type Chunk struct {
	IDs        []int32   // start, tokens, end and padding; 0 where a vector stands
	Weights    []float64 // by place; 1 of start, end and padding
	Embeddings []Placed
}

// Placed is an embedding in a chunk.
type Placed struct {
	At   int // the place of its first vector, of IDs
	Name string
}

// backtrack is how many tokens behind a comma may move to the next chunk with what does not fit.
const backtrack = 20

// Split makes chunks of so many places of the parts of a prompt, one at least. Each part is tokenized alone. Where a chunk is full and
// its last comma is near, what follows the comma moves to the next one. Of several embeddings that fit, the one of most tokens counts,
// and its vectors stay together. The error is an Error, or the tokenizer's.
//
// The reference is the TextConditionalModel of AUTOMATIC1111's stable-diffusion-webui, but that there the vectors of an embedding do
// not move with its places.
func Split(parts []Part, t Tokenizer, embeddings []Embedding, places int) ([]Chunk, error) {
	comma, err := t.Words(",")
	if err != nil {
		return nil, err
	}
	embeddings = slices.Clone(embeddings)
	slices.SortStableFunc(embeddings, func(a, b Embedding) int { return len(b.Tokens) - len(a.Tokens) })
	s := splitter{tokenizer: t, size: places - 2, comma: -1}
	for _, p := range parts {
		if p.Break() {
			s.end()
			continue
		}
		tokens, err := t.Words(p.Text)
		if err != nil {
			return nil, err
		}
		for len(tokens) > 0 {
			isComma := len(comma) == 1 && tokens[0] == comma[0]
			s.makeRoom(isComma)
			i := slices.IndexFunc(embeddings, func(e Embedding) bool {
				return len(tokens) >= len(e.Tokens) && slices.Equal(tokens[:len(e.Tokens)], e.Tokens)
			})
			if i < 0 {
				s.put(tokens[0], p.Weight)
				tokens = tokens[1:]
				continue
			}
			if err := s.place(embeddings[i], p.Weight); err != nil {
				return nil, err
			}
			tokens = tokens[len(embeddings[i].Tokens):]
		}
	}
	if len(s.ids) > 0 || len(s.chunks) == 0 {
		s.end()
	}
	if len(s.chunks) > MaxChunks {
		return nil, &Error{Got: fmt.Sprintf("%d chunks", len(s.chunks)), Expected: fmt.Sprintf("at most %d chunks of %d tokens", MaxChunks, s.size)}
	}
	return s.chunks, nil
}

// splitter is the state of Split.
type splitter struct {
	tokenizer Tokenizer
	size      int // tokens of a chunk
	chunks    []Chunk
	ids       []int32 // of the chunk that is filled, without start
	weights   []float64
	placed    []Placed
	comma     int // place of the last comma in ids; -1 is none
}

// makeRoom ends a chunk that is full before the next token.
func (s *splitter) makeRoom(isComma bool) {
	full := len(s.ids) == s.size
	switch {
	case isComma:
		s.comma = len(s.ids)
	case full && s.comma >= 0 && len(s.ids)-s.comma <= backtrack:
		ids, weights, placed, from := s.ids, s.weights, s.placed, s.comma+1
		stay := slices.IndexFunc(placed, func(p Placed) bool { return p.At > from })
		if stay < 0 {
			stay = len(placed)
		}
		s.ids, s.weights, s.placed = ids[:from:from], weights[:from:from], placed[:stay:stay]
		s.end()
		s.ids, s.weights = ids[from:], weights[from:]
		for _, p := range placed[stay:] {
			s.placed = append(s.placed, Placed{p.At - from, p.Name})
		}
		full = len(s.ids) == s.size
	}
	if full {
		s.end()
	}
}

func (s *splitter) put(id int32, weight float64) {
	s.ids, s.weights = append(s.ids, id), append(s.weights, weight)
}

func (s *splitter) place(e Embedding, weight float64) error {
	if e.Vectors > s.size {
		return &Error{Got: fmt.Sprintf("%d of %q", e.Vectors, e.Name), Expected: fmt.Sprintf("at most %d vectors of an embedding", s.size)}
	}
	if len(s.ids)+e.Vectors > s.size {
		s.end()
	}
	s.placed = append(s.placed, Placed{1 + len(s.ids), e.Name})
	for range e.Vectors {
		s.put(0, weight)
	}
	return nil
}

// end ends the chunk that is filled, be it empty.
func (s *splitter) end() {
	c := Chunk{IDs: []int32{s.tokenizer.Start()}, Weights: []float64{1}, Embeddings: s.placed}
	c.IDs = append(append(c.IDs, s.ids...), s.tokenizer.End())
	c.Weights = append(append(c.Weights, s.weights...), 1)
	for len(c.IDs) < s.size+2 {
		c.IDs, c.Weights = append(c.IDs, s.tokenizer.Pad()), append(c.Weights, 1)
	}
	s.chunks = append(s.chunks, c)
	s.ids, s.weights, s.placed, s.comma = nil, nil, nil, -1
}
