package prompt

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxTexts is how many different texts a prompt may become while a picture is drawn.
const MaxTexts = 32

// Period is what a prompt is for some of the steps.
type Period struct {
	Until int // see At; the last period's is the number of steps
	Text  string
}

// Schedule tells what a prompt is while a picture is drawn in so many steps. [a:b:N] is a until step N and then b, [b:N] nothing and
// then b, [a::N] a and then nothing; N with a point is a fraction of the steps. [a|b] is one after the other, a new one each step. They
// may stand in one another. What is none of them stays as it is, weights too; a prompt with a | outside of square brackets, or a
// backslash at its end, is text as a whole. There is one period at least. The error is an Error.
//
// The reference is get_learned_conditioning_prompt_schedules of AUTOMATIC1111's stable-diffusion-webui. Beside a closing bracket too many
// its grammar is ambiguous, and may take an edit for text.
func Schedule(text string, steps int) ([]Period, error) {
	p := parser{source: text, steps: steps, known: map[int]bracket{}}
	all, ok := p.whole()
	if p.err != nil {
		return nil, p.err
	}
	if !ok {
		return []Period{{steps, text}}, nil
	}
	var out []Period
	texts := map[string]bool{}
	ends := append(p.until, steps)
	slices.Sort(ends)
	for _, until := range slices.Compact(ends) {
		var b strings.Builder
		all.write(&b, until)
		out = append(out, Period{until, b.String()})
		if texts[b.String()] = true; len(texts) > MaxTexts {
			return nil, &Error{Got: "more texts", Expected: fmt.Sprintf("a prompt that becomes at most %d different texts", MaxTexts)}
		}
	}
	return out, nil
}

// At is the period of a step, which counts from 0: the first whose Until is not less, so that the first period has Until + 1 steps, as in
// the reference.
func At(periods []Period, step int) int {
	i := slices.IndexFunc(periods, func(p Period) bool { return step <= p.Until })
	if i < 0 {
		i = len(periods) - 1
	}
	return i
}

// node is a piece of a prompt.
type node interface {
	// write writes what it is until a step, which counts from 1.
	write(b *strings.Builder, until int)
}

type (
	literal  string
	sequence []node
	edited   struct {
		before, after node
		until         int
	}
	alternating []node
)

func (l literal) write(b *strings.Builder, _ int) { b.WriteString(string(l)) }

func (s sequence) write(b *strings.Builder, until int) {
	for _, n := range s {
		n.write(b, until)
	}
}

func (e edited) write(b *strings.Builder, until int) {
	if until <= e.until {
		e.before.write(b, until)
	} else {
		e.after.write(b, until)
	}
}

func (a alternating) write(b *strings.Builder, until int) { a[(until-1)%len(a)].write(b, until) }

// parser reads a prompt.
type parser struct {
	source string
	steps  int
	until  []int           // where texts change
	known  map[int]bracket // what begins at a bracket, by its place
	depth  int
	err    error
}

// bracket is what a bracket begins: a node, and the place behind it; 0 if it is not closed as it would have to be.
type bracket struct {
	node node
	end  int
}

// whole reads everything, and tells whether it can be read.
func (p *parser) whole() (all sequence, ok bool) {
	for at := 0; at < len(p.source); {
		some, end := p.run(at)
		all = append(all, some...)
		if at = end; at == len(p.source) {
			break
		}
		if strings.IndexByte(`[]():`, p.source[at]) < 0 {
			return nil, false
		}
		all = append(all, literal(p.source[at:at+1]))
		at++
	}
	return all, true
}

// run reads text and closed brackets from a place on, as far as there are any.
func (p *parser) run(at int) (out sequence, end int) {
	for at < len(p.source) && p.err == nil {
		switch c := p.source[at]; c {
		case '[', '(':
			b := p.bracket(at)
			if b.end == 0 {
				return out, at
			}
			out = append(out, b.node)
			at = b.end
		case ']', ')', ':', '|':
			return out, at
		default:
			n := p.plain(at)
			if n == 0 {
				return out, at
			}
			out = append(out, literal(p.source[at:at+n]))
			at += n
		}
	}
	return out, at
}

// plain tells the bytes of text without brackets, of which an escape is one.
func (p *parser) plain(at int) (n int) {
	rest := p.source[at:]
	for n < len(rest) {
		if rest[n] != '\\' {
			more := strings.IndexAny(rest[n:], `\[]():|`)
			if more < 0 {
				return len(rest)
			}
			if more == 0 {
				return n
			}
			n += more
			continue
		}
		r, size := utf8.DecodeRuneInString(rest[n+1:])
		if size == 0 || r == '\n' {
			return n
		}
		n += 1 + size
	}
	return n
}

// bracket reads what an opening bracket begins.
func (p *parser) bracket(at int) bracket {
	b, known := p.known[at]
	if known {
		return b
	}
	if p.depth == MaxNesting {
		p.err = &Error{Got: "more brackets", Expected: fmt.Sprintf("at most %d brackets open at once", MaxNesting)}
		return bracket{}
	}
	p.depth++
	if p.source[at] == '(' {
		b = p.round(at)
	} else {
		b = p.square(at)
	}
	p.depth--
	p.known[at] = b
	return b
}

// round reads (x) and (x:y), which stay as they are but for what is in x and y.
func (p *parser) round(at int) bracket {
	out, end := p.run(at + 1)
	if p.is(end, ':') {
		var more sequence
		more, end = p.run(end + 1)
		out = append(append(out, literal(":")), more...)
	}
	if !p.is(end, ')') {
		return bracket{}
	}
	return bracket{append(append(sequence{literal("(")}, out...), literal(")")), end + 1}
}

// square reads [x], [x|y], [x:N] and [x:y:N].
func (p *parser) square(at int) bracket {
	first, end := p.run(at + 1)
	pieces := []node{first}
	switch {
	case p.is(end, ']'):
		return bracket{append(append(sequence{literal("[")}, first...), literal("]")), end + 1}
	case p.is(end, '|'):
		for p.is(end, '|') {
			var next sequence
			next, end = p.run(end + 1)
			pieces = append(pieces, next)
		}
		if !p.is(end, ']') {
			return bracket{}
		}
		for step := 1; step < p.steps; step++ {
			p.change(step)
		}
		return bracket{alternating(pieces), end + 1}
	}
	begin := end // of the last piece, with its colon
	for p.is(end, ':') && len(pieces) <= 3 {
		var next sequence
		begin = end
		next, end = p.run(end + 1)
		pieces = append(pieces, next)
	}
	if !p.is(end, ']') || len(pieces) > 3 {
		return bracket{}
	}
	until, ok := p.when(p.source[begin+1 : end])
	if !ok {
		return bracket{}
	}
	e := edited{sequence{}, pieces[len(pieces)-2], until}
	if len(pieces) == 3 {
		e.before = pieces[0]
	}
	if until >= 1 {
		p.change(until)
	}
	return bracket{e, end + 1}
}

// when reads the number of an edit, and tells the step.
func (p *parser) when(text string) (step int, ok bool) {
	text = strings.TrimFunc(text, unicode.IsSpace)
	if strings.Trim(text, "+-.0123456789eE") != "" { // other numbers that Go reads
		return 0, false
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(v, 0) {
		return 0, false
	}
	if strings.Contains(text, ".") {
		v *= float64(p.steps)
	}
	return int(min(max(v, 0), float64(p.steps))), true
}

// change notes that the text is another one behind a step.
func (p *parser) change(until int) {
	if !slices.Contains(p.until, until) {
		p.until = append(p.until, until)
	}
}

func (p *parser) is(at int, c byte) bool { return at < len(p.source) && p.source[at] == c }
