package torchfile

import (
	"fmt"
	"math"
)

// step does what an opcode says. Those by which a program looks into its surroundings are refused: extensions (EXT1 to EXT4), ids
// in text (PERSID) and buffers out of band.
func (m *machine) step(op byte) {
	switch op {
	case opProto:
		if version := m.byte(); version > 5 {
			m.fail("a pickle of protocol 5 or less", fmt.Sprint(version))
		}
	case 0x95: // FRAME
		if n := m.u64(); m.err == nil && n > uint64(m.left) {
			m.fail(fmt.Sprintf("a frame of at most %d bytes", m.left), fmt.Sprint(n))
		}
	case '(': // MARK
		m.charge(slot)
		m.marks = append(m.marks, len(m.stack))
	case '0': // POP
		m.pop()
	case '1': // POP_MARK
		m.mark()
	case '2': // DUP
		m.push(m.top())
	case 'q': // BINPUT
		m.put(uint64(m.byte()))
	case 'r': // LONG_BINPUT
		m.put(m.u32())
	case 'p': // PUT
		m.put(m.lineIndex())
	case 0x94: // MEMOIZE
		m.put(uint64(len(m.memo)))
	case 'h': // BINGET
		m.get(uint64(m.byte()))
	case 'j': // LONG_BINGET
		m.get(m.u32())
	case 'g': // GET
		m.get(m.lineIndex())
	case 'c': // GLOBAL
		module := m.line()
		m.name(module, m.line())
	case 0x93: // STACK_GLOBAL
		name := m.pop()
		m.name(m.pop(), name)
	case 'Q': // BINPERSID
		m.push(m.persistent(m.pop()))
	case 'b': // BUILD
		m.build()
	case 'R', 0x81, 0x92, 'o', 'i':
		m.construct(op)
	case ']', '}', ')', 0x8f, 'l', 't', 'd', 0x91, 0x85, 0x86, 0x87, 'a', 'e', 0x90, 's', 'u':
		m.collect(op)
	default:
		m.plain(op)
	}
}

// construct does what makes an object of a class and arguments.
func (m *machine) construct(op byte) {
	var class, args any
	switch op {
	case 0x92: // NEWOBJ_EX
		m.pop() // of keywords
		fallthrough
	case 'R', 0x81: // REDUCE, NEWOBJ
		args = m.pop()
		class = m.pop()
	case 'o': // OBJ
		items := m.mark()
		if len(items) == 0 {
			m.fail("a class", "nothing")
			return
		}
		class, args = items[0], &tuple{items[1:]}
	case 'i': // INST
		module := m.line()
		m.name(module, m.line())
		class = m.pop()
		args = &tuple{m.mark()}
	}
	if m.err != nil {
		return
	}
	made := m.call(class, args)
	if _, closed := made.(*opaque); op == 0x92 && !closed {
		m.fail("an object", describe(made))
	}
	m.charge(container)
	m.push(made)
}

// collect does what makes and fills lists, tuples, dicts and sets; a set is an object that is not looked into.
func (m *machine) collect(op byte) {
	switch op {
	case 'a': // APPEND
		item := m.pop()
		m.append(m.top(), item)
		return
	case 'e', 0x90: // APPENDS, ADDITEMS
		items := m.mark()
		m.append(m.top(), items...)
		return
	case 's': // SETITEM
		value := m.pop()
		key := m.pop()
		m.setItems(m.top(), []any{key, value})
		return
	case 'u': // SETITEMS
		items := m.mark()
		m.setItems(m.top(), items)
		return
	}
	m.charge(container)
	switch op {
	case ']': // EMPTY_LIST
		m.push(&list{})
	case '}': // EMPTY_DICT
		m.push(newDict())
	case ')': // EMPTY_TUPLE
		m.push(&tuple{})
	case 0x8f: // EMPTY_SET
		m.push(&opaque{class: global{"builtins", "set"}})
	case 'l': // LIST
		m.push(&list{m.mark()})
	case 't': // TUPLE
		m.push(&tuple{m.mark()})
	case 'd': // DICT
		d := newDict()
		m.setItems(d, m.mark())
		m.push(d)
	case 0x91: // FROZENSET
		m.push(&opaque{class: global{"builtins", "frozenset"}, items: m.mark()})
	case 0x85, 0x86, 0x87: // TUPLE1, TUPLE2, TUPLE3
		items := make([]any, op-0x84)
		for i := range items {
			items[len(items)-1-i] = m.pop()
		}
		m.push(&tuple{items})
	}
}

// plain does what pushes a number, a text or bytes.
func (m *machine) plain(op byte) {
	switch op {
	case 'N': // NONE
		m.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		m.push(op == 0x88)
	case 'I': // INT
		switch text := m.line(); text {
		case "00", "01":
			m.push(text == "01")
		default:
			m.push(m.integer(text))
		}
	case 'L': // LONG
		text := m.line()
		if n := len(text); n > 0 && text[n-1] == 'L' {
			text = text[:n-1]
		}
		m.push(m.integer(text))
	case 'J': // BININT
		m.push(int64(int32(m.u32())))
	case 'K': // BININT1
		m.push(int64(m.byte()))
	case 'M': // BININT2
		m.push(int64(m.u16()))
	case 0x8a: // LONG1
		m.push(m.long(uint64(m.byte())))
	case 0x8b: // LONG4, whose length is signed: a negative one is a large one here
		m.push(m.long(m.u32()))
	case 'F': // FLOAT
		m.push(m.float(m.line()))
	case 'G': // BINFLOAT
		m.push(math.Float64frombits(m.beU64()))
	case 'S', 'V': // STRING, UNICODE
		m.push(m.quoted())
	case 'X': // BINUNICODE
		m.push(m.text(m.u32()))
	case 0x8c: // SHORT_BINUNICODE
		m.push(m.text(uint64(m.byte())))
	case 0x8d: // BINUNICODE8
		m.push(m.text(m.u64()))
	case 'T': // BINSTRING
		m.push(m.latin(m.u32()))
	case 'U': // SHORT_BINSTRING
		m.push(m.latin(uint64(m.byte())))
	case 'C': // SHORT_BINBYTES
		m.bytes(uint64(m.byte()))
	case 'B': // BINBYTES
		m.bytes(m.u32())
	case 0x8e, 0x96: // BINBYTES8, BYTEARRAY8
		m.bytes(m.u64())
	default:
		m.fail("a pickle of plain data", fmt.Sprintf("opcode 0x%02x", op))
	}
}

// bytes passes over n bytes, which are no part of a tensor.
func (m *machine) bytes(n uint64) {
	m.skip(n)
	m.push(unread{})
}
