package prompt

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Part is a stretch of a prompt and its weight.
type Part struct {
	Text   string
	Weight float64
}

// The word that ends a chunk, and the weight that marks it.
const (
	breakWord   = "BREAK"
	breakWeight = -1
)

// Break reports whether the part is none, but the end of a chunk.
func (p Part) Break() bool { return p.Text == breakWord && p.Weight == breakWeight }

// emphasis is what a pair of round brackets multiplies weights by, and a pair of square ones divides.
const emphasis = 1.1

// Parse splits a prompt into parts by weight: (x) is 1.1 times x, [x] is x divided by 1.1, (x:N) is N times x, and nested brackets
// multiply. Unclosed brackets act to the end; closing ones without an opening are text, as is a bracket or backslash behind a
// backslash. BREAK, as a word of its own outside of brackets, is a part that ends a chunk; within brackets it is a word with a weight
// below 0, as in the reference. There is one part at least. The error is an Error.
//
// The reference is parse_prompt_attention of AUTOMATIC1111's stable-diffusion-webui.
func Parse(text string) ([]Part, error) {
	var w weights
	for text != "" {
		n, err := w.next(text)
		if err != nil {
			return nil, err
		}
		text = text[n:]
	}
	for _, from := range w.round {
		w.multiply(from, emphasis)
	}
	for _, from := range w.square {
		w.multiply(from, 1/emphasis)
	}
	return w.joined()
}

// weights is the state of Parse.
type weights struct {
	parts         []Part
	round, square []int // brackets that are open: how many parts there were
}

// next reads one element at the start of text, and tells its bytes.
func (w *weights) next(text string) (int, error) {
	switch c := text[0]; {
	case c == '\\' && len(text) > 1 && strings.IndexByte(`()[]\`, text[1]) >= 0:
		w.add(text[1:2])
		return 2, nil
	case c == '\\':
		w.add("")
		return 1, nil
	case c == '(' || c == '[':
		if len(w.round)+len(w.square) == MaxNesting {
			return 0, &Error{Got: "more brackets", Expected: fmt.Sprintf("at most %d brackets open at once", MaxNesting)}
		}
		if c == '(' {
			w.round = append(w.round, len(w.parts))
		} else {
			w.square = append(w.square, len(w.parts))
		}
		return 1, nil
	case c == ':':
		number, n := closingNumber(text)
		if n == 0 || len(w.round) == 0 {
			w.add(text[:max(n, 1)])
			return max(n, 1), nil
		}
		factor, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return 0, &Error{Got: shorten(number), Expected: "a number between the colon and the bracket, or \\) for a bracket that is text"}
		}
		w.close(&w.round, factor)
		return n, nil
	case c == ')' && len(w.round) > 0:
		w.close(&w.round, emphasis)
		return 1, nil
	case c == ']' && len(w.square) > 0:
		w.close(&w.square, 1/emphasis)
		return 1, nil
	case c == ')' || c == ']':
		w.add(text[:1])
		return 1, nil
	}
	n := strings.IndexAny(text, `\()[]:`)
	if n < 0 {
		n = len(text)
	}
	w.addWords(text[:n])
	return n, nil
}

// closingNumber finds a colon, a number and a closing bracket at the start of text, and tells their bytes; 0 is none.
func closingNumber(text string) (number string, n int) {
	rest := strings.TrimLeftFunc(text[1:], unicode.IsSpace)
	end := strings.TrimLeft(rest[len(rest)-len(strings.TrimPrefix(strings.TrimPrefix(rest, "+"), "-")):], ".0123456789")
	number = rest[:len(rest)-len(end)]
	end = strings.TrimLeftFunc(end, unicode.IsSpace)
	if strings.Trim(number, "+-") == "" || !strings.HasPrefix(end, ")") {
		return "", 0
	}
	return number, len(text) - len(end) + 1
}

func (w *weights) add(text string) { w.parts = append(w.parts, Part{text, 1}) }

// addWords adds text, with a part for each BREAK and the white space around it.
func (w *weights) addWords(text string) {
	from := 0
	for at := 0; ; {
		i := strings.Index(text[at:], breakWord)
		if i < 0 {
			break
		}
		begin, end := at+i, at+i+len(breakWord)
		at = end
		before, _ := utf8.DecodeLastRuneInString(text[:begin])
		after, _ := utf8.DecodeRuneInString(text[end:])
		if begin > 0 && isWord(before) || end < len(text) && isWord(after) {
			continue
		}
		w.add(strings.TrimRightFunc(text[from:begin], unicode.IsSpace))
		w.parts = append(w.parts, Part{breakWord, breakWeight})
		from = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
		at = from
	}
	w.add(text[from:])
}

// isWord tells whether a character is of a word, which no word can begin or end beside.
func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) }

func (w *weights) close(open *[]int, factor float64) {
	last := len(*open) - 1
	w.multiply((*open)[last], factor)
	*open = (*open)[:last]
}

func (w *weights) multiply(from int, factor float64) {
	for i := range w.parts[from:] {
		w.parts[from+i].Weight *= factor
	}
}

// joined are the parts, neighbours of equal weight made one.
func (w *weights) joined() ([]Part, error) {
	if len(w.parts) == 0 {
		w.add("")
	}
	var out []Part
	for from := 0; from < len(w.parts); {
		p, to := w.parts[from], from+1
		for to < len(w.parts) && w.parts[to].Weight == p.Weight {
			to++
		}
		if !(math.Abs(p.Weight) <= MaxWeight) {
			return nil, &Error{Got: fmt.Sprintf("%g for %s", p.Weight, shorten(p.Text)), Expected: fmt.Sprintf("weights from %d to %d", -MaxWeight, MaxWeight)}
		}
		if to > from+1 {
			var b strings.Builder
			for _, q := range w.parts[from:to] {
				b.WriteString(q.Text)
			}
			p.Text = b.String()
		}
		out = append(out, p)
		from = to
	}
	return out, nil
}
