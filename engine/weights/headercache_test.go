package weights

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Headers are parsed once while they are what they were, whatever else the file has; a file that changes is read anew, and what is kept is bounded.
func TestParsedHeaders(t *testing.T) {
	write := func(path, header string, data int) {
		t.Helper()
		all := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
		if err := os.WriteFile(path, append(all, make([]byte, data)...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "a.safetensors")
	names := func() string {
		t.Helper()
		s, err := OpenFile(path)
		if err != nil {
			return err.Error()
		}
		defer s.Close()
		return strings.Join(s.Names(), " ")
	}
	one, two := `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, `{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`
	for _, c := range []struct {
		header string
		data   int
		want   string
	}{{one, 4, "a"}, {one, 4, "a"}, {two, 4, "b"}, {one, 4, "a"}, {one, 8, "got 8 bytes"}, {one, 4, "a"}} {
		write(path, c.header, c.data)
		if got := names(); !strings.Contains(got, c.want) {
			t.Errorf("%s with %d bytes: %s, want %s", c.header, c.data, got, c.want)
		}
	}
	var p parsedHeaders
	header := []byte(one)
	first, broken := p.parse(header, 4)
	if broken != nil {
		t.Fatal(broken)
	}
	if again, _ := p.parse([]byte(one), 4); again != first {
		t.Error("parsed twice")
	}
	for i := range 3 * maxParsed {
		if _, broken := p.parse(fmt.Appendf(nil, `{"__metadata__":{"n":"%d %s"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, i, strings.Repeat(" ", maxParsedBytes/maxParsed*2)), 4); broken != nil {
			t.Fatal(broken)
		}
	}
	if again, _ := p.parse([]byte(one), 4); again == first {
		t.Error("kept for ever")
	}
	sum := 0
	for _, h := range p.all {
		sum += len(h.header)
	}
	if len(p.all) > maxParsed || p.bytes > maxParsedBytes || p.bytes != sum {
		t.Errorf("%d headers of %d bytes, counted as %d", len(p.all), sum, p.bytes)
	}
}
