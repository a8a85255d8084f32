package stageplugin

import (
	"bytes"
	"strings"
	"sync"
)

// tailBytes is how much of a child's last words is kept for errors.
const tailBytes = 2 << 10

// tail is a writer that keeps the end of what was written or, when the Go program that writes it
// crashes, the beginning of what it says about that. The zero value is empty.
type tail struct {
	mu      sync.Mutex
	buf     []byte
	crashed bool
}

// Write takes a line, or a part of a long one, and never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.crashed && (bytes.HasPrefix(p, []byte("panic: ")) || bytes.HasPrefix(p, []byte("fatal error: "))) {
		t.crashed, t.buf = true, t.buf[:0]
	}
	t.buf = append(t.buf, p...)
	if cut := len(t.buf) - tailBytes; cut > 0 && t.crashed {
		t.buf = t.buf[:tailBytes]
	} else if cut > 0 {
		t.buf = append(t.buf[:0], t.buf[cut:]...)
	}
	return len(p), nil
}

// String is the text without the space around it.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(strings.TrimSpace(string(t.buf)), "")
}
