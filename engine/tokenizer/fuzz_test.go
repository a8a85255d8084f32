package tokenizer

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"
)

// encode checks what every encoding must be.
func encode(t *testing.T, c *CLIP, s string, n int) {
	t.Helper()
	ids, dropped, err := c.Encode(s, n)
	if bad := n < frame || !utf8.ValidString(s); bad || err != nil {
		var e *InputError
		if !bad || ids != nil || !errors.As(err, &e) {
			t.Fatalf("Encode(%+q, %d) = %v, %v", s, n, ids, err)
		}
		return
	}
	if len(ids) != n || ids[0] != c.Start() || dropped < 0 {
		t.Fatalf("Encode(%+q, %d) = %v, dropped %d", s, n, ids, dropped)
	}
	for _, id := range ids {
		if id < 0 || int(id) >= c.VocabSize() {
			t.Fatalf("Encode(%+q, %d): id %d of %d", s, n, id, c.VocabSize())
		}
	}
	if dropped > 0 && ids[n-1] != c.End() {
		t.Fatalf("Encode(%+q, %d) = %v: no end", s, n, ids)
	}
}

// Any bytes as the files of a folder: an Error or a tokenizer whose ids are in range. No panic.
func FuzzOpenFiles(f *testing.F) {
	a, b := small(), smallWhole()
	f.Add([]byte(a[vocabFile]), []byte(a[mergesFile]), []byte(nil), []byte(`{"pad_token":"a"}`), []byte(`{"pad_token":{"content":"b","normalized":true}}`), []byte(`{"<X>":7}`))
	f.Add([]byte(nil), []byte(nil), []byte(b[tokenizerFile]), []byte(`{"added_tokens_decoder":{"0":{"content":"a"}}}`), []byte(nil), []byte(nil))
	f.Add([]byte(nil), []byte(nil), []byte(strings.Replace(b[tokenizerFile], `"BPE"`, `"Unigram"`, 1)), []byte(nil), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, vocab, merges, whole, config, special, added []byte) {
		m := fstest.MapFS{}
		for name, data := range map[string][]byte{vocabFile: vocab, mergesFile: merges, tokenizerFile: whole, configFile: config, specialFile: special, addedFile: added} {
			if len(data) > 0 {
				m[name] = &fstest.MapFile{Data: data}
			}
		}
		c, err := OpenFS(m)
		if err != nil {
			var e *Error
			if c != nil || !errors.As(err, &e) || e.File == "" || e.Expected == "" || e.Got == "" {
				t.Fatalf("%v, %#v", c, err)
			}
			return
		}
		if again, err := OpenFS(maps.Clone(m)); err != nil || again.VocabSize() != c.VocabSize() {
			t.Fatalf("the second time: %v", err)
		}
		encode(t, c, "ab A\u0308b <|EndOfText|><|endoftext|> it's <x>", 12)
	})
}

// Any text, with added tokens of both kinds: no panic, exactly the length that was asked for, ids in
// range, and the definition of the merges holds for every word.
func FuzzEncode(f *testing.F) {
	folder := starter(f)
	folder[addedFile] = `{"<My Cat>":2267,"<sks>":2268}`
	folder[configFile] = `{"pad_token":"!","eos_token":{"content":"<|endoftext|>","normalized":true}}`
	c, err := folder.open()
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{prompt, "", "<|endoftext|>", "<MY  CAT><sks>!", "e\u0301\u0323", "\xff", "\u1100\u1161\u11a8", strings.Repeat("\u0301", 40), "İ 's", "<|ENDOFTEXT|", "\x00"} {
		f.Add(s, uint8(77))
	}
	f.Fuzz(func(t *testing.T, s string, n uint8) {
		encode(t, c, s, int(n))
		m := merger{bytePairs: &c.bytePairs}
		splitWords(s, func(word string) {
			if len(word) > 1000 { // the definition is quadratic
				return
			}
			if got, want := m.appendWord(nil, word), naive(&c.bytePairs, word); !slices.Equal(got, want) {
				t.Errorf("%+q: %v, want %v", word, got, want)
			}
		})
	})
}
