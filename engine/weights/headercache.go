package weights

import (
	"bytes"
	"slices"
	"sync"
)

// A file is opened several times in a row: to tell what it is, to look at its parts, to declare them, to load them. Its header is parsed
// once: what was parsed last is kept by the bytes that it was parsed from, so that nothing that changes a file goes unseen.

// The bounds of what is kept.
const (
	maxParsed      = 64
	maxParsedBytes = 8 << 20 // of headers; that of SDXL has 300 kB
)

// parsed is a header's entries by name, which nobody writes to.
type parsed struct {
	header   []byte
	dataLen  int64
	tensors  map[string]entry
	metadata map[string]string
}

// parsedHeaders are those of this process, the last one used at the end.
type parsedHeaders struct {
	mu    sync.Mutex // a leaf
	all   []*parsed
	bytes int
}

var recent parsedHeaders

// parse is parseHeader with entries by name, remembered.
func (p *parsedHeaders) parse(header []byte, dataLen int64) (*parsed, *Error) {
	p.mu.Lock()
	at := slices.IndexFunc(p.all, func(h *parsed) bool { return h.dataLen == dataLen && bytes.Equal(h.header, header) })
	if at >= 0 {
		h := p.all[at]
		p.all = append(slices.Delete(p.all, at, at+1), h)
		p.mu.Unlock()
		return h, nil
	}
	p.mu.Unlock()
	entries, metadata, broken := parseHeader(header, dataLen)
	if broken != nil {
		return nil, broken
	}
	h := &parsed{header: header, dataLen: dataLen, tensors: make(map[string]entry, len(entries)), metadata: metadata}
	for _, e := range entries {
		h.tensors[e.name] = e
	}
	if len(header) > maxParsedBytes {
		return h, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all, p.bytes = append(p.all, h), p.bytes+len(header)
	for len(p.all) > maxParsed || p.bytes > maxParsedBytes {
		p.bytes -= len(p.all[0].header)
		p.all = slices.Delete(p.all, 0, 1)
	}
	return h, nil
}
