package local

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// maxWords bounds what is kept of a line.
const maxWords = 4 << 10

// words passes on what a program writes to standard error and keeps its last line, where it says why it ends.
type words struct {
	to io.Writer

	mu   sync.Mutex
	line []byte // the one being written, or the last if none is
	done bool   // the line has ended
}

// Write passes p on.
func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	for line := range bytes.Lines(p) {
		if w.done && len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if w.done {
			w.line, w.done = w.line[:0], false
		}
		w.line = append(w.line, line[:min(len(line), maxWords-min(len(w.line), maxWords))]...)
		w.done = line[len(line)-1] == '\n'
	}
	w.mu.Unlock()
	return w.to.Write(p)
}

// last is the last line, without the program's name before it.
func (w *words) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimPrefix(strings.TrimSpace(string(w.line)), "triptych: ")
}
