package torchfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// input reads pickles piece by piece. The first error sticks, and what is read behind it is zero.
type input struct {
	r    *bufio.Reader
	left int64 // bytes that pickles may still have
	read int64
	err  error
}

// newInput reads from r, which has so many bytes.
func newInput(r io.Reader, size int64) *input {
	return &input{r: bufio.NewReaderSize(r, maxText), left: min(size, maxPickle)}
}

func (in *input) fail(expected, got string) {
	if in.err == nil {
		in.err = refuse(expected, got)
	}
}

// has takes n bytes off what is left, before anybody makes room for them.
func (in *input) has(n uint64) bool {
	if in.err == nil && n > uint64(in.left) {
		in.fail(fmt.Sprintf("a pickle that ends within %d bytes", in.left), fmt.Sprintf("one cut off or damaged: a length of %d", n))
	}
	if in.err != nil {
		return false
	}
	in.left -= int64(n)
	in.read += int64(n)
	return true
}

// take is the next n bytes, valid until the next call; n is at most maxText.
func (in *input) take(n int) []byte {
	if !in.has(uint64(n)) {
		return make([]byte, n)
	}
	data, err := in.r.Peek(n)
	if err != nil {
		in.broken(err)
		return make([]byte, n)
	}
	_, _ = in.r.Discard(n) // it is there
	return data
}

func (in *input) broken(err error) {
	if in.err == nil {
		in.err = &Error{Expected: "a whole pickle", Got: readFault(err), Err: err}
	}
}

// readFault says what a failed read found.
func readFault(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "one that is cut off"
	}
	return err.Error()
}

// skip passes over n bytes.
func (in *input) skip(n uint64) {
	if !in.has(n) {
		return
	}
	if _, err := in.r.Discard(int(n)); err != nil {
		in.broken(err)
	}
}

func (in *input) byte() byte    { return in.take(1)[0] }
func (in *input) u16() uint64   { return uint64(binary.LittleEndian.Uint16(in.take(2))) }
func (in *input) u32() uint64   { return uint64(binary.LittleEndian.Uint32(in.take(4))) }
func (in *input) u64() uint64   { return binary.LittleEndian.Uint64(in.take(8)) }
func (in *input) beU64() uint64 { return binary.BigEndian.Uint64(in.take(8)) }

// line is the text up to the next line feed, without it.
func (in *input) line() string {
	data, err := in.r.ReadSlice('\n')
	switch {
	case in.err != nil:
	case err != nil:
		in.fail("a line of text", "one that does not end")
	case in.has(uint64(len(data))):
		return string(data[:len(data)-1])
	}
	return ""
}

// text is n bytes of UTF-8; a text that is too long to be kept is passed over and given as an unread.
func (in *input) text(n uint64) any {
	if n > maxText {
		in.skip(n)
		return unread{}
	}
	data := in.take(int(n))
	if !utf8.Valid(data) {
		in.fail("text in UTF-8", fmt.Sprintf("%q", data[:min(len(data), 40)]))
	}
	return string(data)
}

// latin is n bytes of Latin-1, which the older protocols have.
func (in *input) latin(n uint64) any {
	if n > maxText {
		in.skip(n)
		return unread{}
	}
	return fromLatin(string(in.take(int(n))))
}

func fromLatin(s string) string {
	var out strings.Builder
	for i := range len(s) {
		out.WriteRune(rune(s[i]))
	}
	return out.String()
}
