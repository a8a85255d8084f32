package torchfile

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// machine interprets pickles. Errors are those of its input.
type machine struct {
	*input
	storage func(class global, id []any) (*storage, error) // of a persistent id; nil where none belongs

	stack  []any
	marks  []int // heights of the stack
	memo   map[uint64]any
	ops    int
	memory int64
}

// Estimated bytes of values, for maxMemory.
const (
	boxed     = 24 // a value and its place on the stack
	slot      = 16 // its place in a list
	container = 96
	memoized  = 56
)

// opProto begins pickles of protocol 2 and later, and opStop ends all.
const (
	opProto = 0x80
	opStop  = '.'
)

// run interprets one pickle and returns its value.
func (m *machine) run() (any, error) {
	m.stack, m.marks, m.memo = nil, nil, map[uint64]any{}
	for m.err == nil {
		m.ops++
		if m.ops > maxOps {
			m.fail(fmt.Sprintf("pickles of at most %d operations", maxOps), "more")
		}
		op := m.byte()
		if m.err == nil && op == opStop {
			value := m.pop()
			return value, m.err
		}
		m.step(op)
	}
	return nil, m.err
}

// charge counts memory.
func (m *machine) charge(bytes int) {
	if m.memory += int64(bytes); m.memory > maxMemory {
		m.fail(fmt.Sprintf("pickled values of at most %d MiB", maxMemory>>20), "more")
	}
}

func (m *machine) push(v any) {
	m.charge(boxed)
	if s, ok := v.(string); ok {
		m.charge(len(s))
	}
	m.stack = append(m.stack, v)
}

// pop takes the top of the stack off, but nothing below the last mark.
func (m *machine) pop() any {
	bottom := 0
	if len(m.marks) > 0 {
		bottom = m.marks[len(m.marks)-1]
	}
	if len(m.stack) <= bottom {
		m.fail("a value on the pickle's stack", "none")
		return nil
	}
	v := m.top()
	m.stack = m.stack[:len(m.stack)-1]
	return v
}

func (m *machine) top() any {
	if len(m.stack) == 0 {
		m.fail("a value on the pickle's stack", "none")
		return nil
	}
	return m.stack[len(m.stack)-1]
}

// mark takes what is above the last mark off, and the mark.
func (m *machine) mark() []any {
	if len(m.marks) == 0 {
		m.fail("a mark on the pickle's stack", "none")
		return nil
	}
	at := m.marks[len(m.marks)-1]
	m.marks = m.marks[:len(m.marks)-1]
	items := append([]any(nil), m.stack[at:]...)
	m.charge(slot * len(items))
	m.stack = m.stack[:at]
	return items
}

func (m *machine) put(index uint64) {
	m.charge(memoized)
	m.memo[index] = m.top()
}

func (m *machine) get(index uint64) {
	v, there := m.memo[index]
	if !there {
		m.fail("a value that the pickle stored before", fmt.Sprintf("number %d, which it did not", index))
	}
	m.push(v)
}

// lineIndex is the place of a value in the text protocol.
func (m *machine) lineIndex() uint64 {
	text := m.line()
	index, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		m.fail("the number of a stored value", fmt.Sprintf("%q", text))
	}
	return index
}

// integer parses the text of one.
func (m *machine) integer(text string) any {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		m.fail("an integer", fmt.Sprintf("%q", text))
	}
	return n
}

// long reads n bytes of a signed little-endian integer.
func (m *machine) long(n uint64) any {
	const most = 32
	if n > most {
		m.fail(fmt.Sprintf("an integer of at most %d bytes", most), fmt.Sprint(n))
		return nil
	}
	data := m.take(int(n))
	for len(data) > 1 && (data[len(data)-1] == 0 && data[len(data)-2] < 0x80 || data[len(data)-1] == 0xff && data[len(data)-2] >= 0x80) {
		data = data[:len(data)-1] // it tells the sign alone, as the byte before does
	}
	if len(data) > 8 {
		return long(data)
	}
	value := uint64(0)
	for i, b := range data {
		value |= uint64(b) << (8 * i)
	}
	if n := len(data); n > 0 && data[n-1] >= 0x80 {
		value |= math.MaxUint64 << (8 * n) // nothing if n is 8
	}
	return int64(value)
}

// float parses the text of one.
func (m *machine) float(text string) any {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		m.fail("a number", fmt.Sprintf("%q", text))
	}
	return f
}

// quoted is the text of a line of the oldest protocol.
func (m *machine) quoted() string { return fromLatin(strings.Trim(m.line(), `'"`)) }

// append adds items to a list or to an object.
func (m *machine) append(to any, items ...any) {
	m.charge(slot * len(items))
	switch to := to.(type) {
	case *list:
		to.items = append(to.items, items...)
	case *opaque:
		to.items = append(to.items, items...)
	default:
		m.fail("a list or an object to add items to", describe(to))
	}
}

// setItems sets keys and values of a dict, or of an object that is one.
func (m *machine) setItems(of any, items []any) {
	if len(items)%2 != 0 {
		m.fail("a value for each key", "one too few")
		return
	}
	switch of := of.(type) {
	case *dict:
		m.charge((memoized + 2*slot) * len(items) / 2)
		for i := 0; i < len(items); i += 2 {
			of.set(of.hashable(items[i]), items[i+1])
		}
	case *opaque:
		m.append(of, items...)
	default:
		m.fail("a dict or an object to set items of", describe(of))
	}
}

// build gives an object its state, which only those that are kept closed keep.
func (m *machine) build() {
	state := m.pop()
	switch of := m.top().(type) {
	case *opaque:
		of.state = state
	case *dict, *list, *view:
	default:
		m.fail("an object to set the state of", describe(of))
	}
}

// name pushes the name of a class or function.
func (m *machine) name(module, name any) {
	mod, ok := module.(string)
	n, okName := name.(string)
	if !ok || !okName {
		m.fail("the name of a class", describe(module)+" and "+describe(name))
		return
	}
	g := global{mod, n}
	switch {
	case len(mod) > maxClass || len(n) > maxClass:
		m.fail(fmt.Sprintf("names of at most %d bytes", maxClass), fmt.Sprintf("some of %d and %d", len(mod), len(n)))
	case g.is("torch.serialization", "_get_layout"):
		m.fail("dense tensors", "a sparse tensor ("+g.String()+")")
	case g.isForbidden():
		m.fail("weights alone: tensors and plain values", "a pickle that names "+g.String()+", which can run code")
	}
	m.charge(container + len(mod) + len(n))
	m.push(g)
}

// describe names the type of a value in an error.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case string:
		return "a text"
	case *list:
		return "a list"
	case *tuple:
		return "a tuple"
	case *dict:
		return "a dict"
	case *view:
		return "a tensor"
	case global:
		return v.String()
	case *opaque:
		return "an object of " + v.class.String()
	}
	return "a plain value"
}
