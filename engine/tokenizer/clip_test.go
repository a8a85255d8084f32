package tokenizer

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

const prompt = "a highly detailed oil painting of a small red fox on a blue background, by the sea, golden hour, 4k, (masterpiece:1.2), it's sharp!"

// Both layouts of one vocabulary give the same tokenizer, down to its tables.
func TestLayoutsAreEqual(t *testing.T) {
	outline, err := os.ReadFile(filepath.Join(repo, "testdata/golden/tiny-v/tokenizer", tokenizerFile))
	if err != nil {
		t.Fatal(err)
	}
	classic := starter(t)
	one := files{tokenizerFile: whole(t, classic, string(outline))}
	a, err := classic.open()
	if err != nil {
		t.Fatal(err)
	}
	b, err := one.open()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Error("the two layouts differ")
	}
	if len(a.bytePairs.merges) < 1000 {
		t.Errorf("%d merges: nothing was compared", len(a.bytePairs.merges))
	}
}

// A textual inversion of several vectors is named by its first token and spelled out, where it is one token of the text.
func TestInversions(t *testing.T) {
	f := small()
	f[addedFile] = `{"<x>":7,"<x>_1":8,"<x>_2":9,"<x>_4":10,"<y>_1":11}`
	c, err := f.open()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]int32{
		"ab":         {5, 4, 6},
		"<x>":        {5, 7, 8, 9, 6},
		"ab <x>a<x>": {5, 4, 7, 8, 9, 2, 7, 8, 9, 6},
		"<x>_2":      {5, 9, 6}, // another token
		"<y>_1":      {5, 11, 6},
		"<x>_4":      {5, 10, 6},
	} {
		ids, dropped, err := c.Encode(text, len(want))
		if err != nil || dropped != 0 || !slices.Equal(ids, want) {
			t.Errorf("%q: %v, %d dropped, %v, want %v", text, ids, dropped, err, want)
		}
	}
	if _, dropped, err := c.Encode("<x> <x>", 5); err != nil || dropped != 3 {
		t.Errorf("%d dropped, %v, want 3", dropped, err)
	}
	var input *InputError
	if _, _, err := c.Encode(strings.Repeat("<x>", maxTextBytes/12), 77); !errors.As(err, &input) || input.Field != "text" {
		t.Errorf("a text that grows too long: %v", err)
	}
}

// The cut at every length: start first, end last, the tokens of the text between, the number of those
// that did not fit, and the pad token behind.
func TestEncodeCuts(t *testing.T) {
	f := starter(t)
	f[configFile] = `{"pad_token": "a</w>"}` // another pad token than end
	c, err := f.open()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := c.Tokenize(prompt)
	if err != nil || len(whole) < 20 {
		t.Fatalf("%d tokens, %v", len(whole), err)
	}
	for n := 2; n < len(whole)+5; n++ {
		want := slices.Clone(whole)
		dropped := max(0, len(whole)-n)
		if dropped > 0 {
			want = append(slices.Clone(whole[:n-1]), c.End())
		}
		for len(want) < n {
			want = append(want, c.Pad())
		}
		got, d, err := c.Encode(prompt, n)
		if err != nil || d != dropped || !slices.Equal(got, want) {
			t.Errorf("%d: %v, dropped %d, %v; want %v, dropped %d", n, got, d, err, want, dropped)
		}
	}
}

// What cannot be tokenized is an InputError that names the argument, and where it is wrong.
func TestInputErrors(t *testing.T) {
	c := open(t, "models/starter/tokenizer")
	for _, test := range []struct {
		text       string
		max        int
		field, got string
	}{
		{"a", 1, "maxTokens", "1"},
		{"a", 0, "maxTokens", "0"},
		{"a", -7, "maxTokens", "-7"},
		{"abc\xff", 77, "text", "the byte 0xff at offset 3"},
		{"\ufffd ok \xed\xa0\x80", 77, "text", "the byte 0xed at offset 7"}, // a surrogate; U+FFFD itself is fine
		{"\xc3", 77, "text", "the byte 0xc3 at offset 0"},
		{strings.Repeat("a", maxTextBytes+1), 77, "text", "67108865"},
	} {
		ids, _, err := c.Encode(test.text, test.max)
		var e *InputError
		if ids != nil || !errors.As(err, &e) || e.Field != test.field || e.Got != test.got {
			t.Errorf("Encode(%.20q, %d) = %v, %v; want an InputError of %s, got %s", test.text, test.max, ids, err, test.field, test.got)
		}
	}
	if _, err := c.Tokenize("a\x80"); err == nil {
		t.Error("Tokenize takes a stray continuation byte")
	}
	if _, err := c.Tokenize("\ufffd"); err != nil {
		t.Errorf("Tokenize(U+FFFD): %v", err)
	}
}

// naive merges as the paper says: look at all pairs, join the best, start again. It is the definition
// that the queue is compared with.
func naive(b *bytePairs, word string) []int32 {
	var ids []int32
	for i := range len(word) {
		ids = append(ids, b.inner[word[i]])
	}
	ids[len(ids)-1] = b.last[word[len(word)-1]]
	for {
		best := -1
		for i := range len(ids) - 1 {
			g, ok := b.merges[pair{ids[i], ids[i+1]}]
			if ok && (best < 0 || g.rank < b.merges[pair{ids[best], ids[best+1]}].rank) {
				best = i
			}
		}
		if best < 0 {
			return ids
		}
		ids[best] = b.merges[pair{ids[best], ids[best+1]}].id
		ids = slices.Delete(ids, best+1, best+2)
	}
}

// The queue against the definition, on random words of few letters, in which merges overlap.
func TestMergeMatchesDefinition(t *testing.T) {
	c := open(t, "models/starter/tokenizer")
	r := rand.New(rand.NewPCG(1, 2))
	m := merger{bytePairs: &c.bytePairs}
	shorter := 0
	for range 5000 {
		word := make([]byte, 1+r.IntN(40))
		for i := range word {
			word[i] = "aeinorstlh\xc3\xa9"[r.IntN(12)]
		}
		got, want := m.appendWord(nil, string(word)), naive(&c.bytePairs, string(word))
		if !slices.Equal(got, want) {
			t.Fatalf("%q: %v, want %v", word, got, want)
		}
		if len(got) < len(word) {
			shorter++
		}
	}
	if shorter < 4000 {
		t.Errorf("only %d words had a merge", shorter)
	}
}

// A megabyte without a space: work that grows with the square of it would not end within the
// test's time limit.
func TestLongTextsEnd(t *testing.T) {
	c := open(t, "models/starter/tokenizer")
	for name, piece := range map[string]string{"letters": "abnormal", "marks": "\u0301\u0316\u0327\u0334", "punctuation": "!?<|", "hangul": "\u1112\u1161\u11ab"} {
		if ids, err := c.Tokenize(strings.Repeat(piece, 1_000_000/len(piece))); err != nil || len(ids) < 1000 {
			t.Errorf("%s: %d ids, %v", name, len(ids), err)
		}
	}
}

// One tokenizer, many goroutines: the race detector sees shared scratch, and so does the result.
func TestConcurrentUse(t *testing.T) {
	c := open(t, "models/starter/tokenizer")
	want, _, err := c.Encode(prompt, 77)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for range 50 {
				if _, err := c.Tokenize(strings.Repeat("other ", i)); err != nil {
					t.Error(err)
				}
				if got, _, err := c.Encode(prompt, 77); err != nil || !slices.Equal(got, want) {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	wait.Wait()
}

// The byte table is a bijection to the characters that GPT-2 gave it; three fixed points of it.
func TestByteRunes(t *testing.T) {
	seen := map[rune]bool{}
	for _, r := range byteRunes() {
		seen[r] = true
	}
	table := byteRunes()
	if len(seen) != 256 || table['a'] != 'a' || table[' '] != 'Ġ' || table[0xad] != 'Ń' {
		t.Errorf("%d characters; a %q, space %q, 0xad %q", len(seen), table['a'], table[' '], table[0xad])
	}
}

// A typical prompt, cut and padded to the 77 tokens of a text encoder.
func BenchmarkEncode(b *testing.B) {
	c := open(b, "models/starter/tokenizer")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := c.Encode(prompt, 77); err != nil {
			b.Fatal(err)
		}
	}
}

// One word of 10,000 letters.
func BenchmarkLongWord(b *testing.B) {
	c := open(b, "models/starter/tokenizer")
	word := strings.Repeat("abnormal", 1250)
	for b.Loop() {
		if _, err := c.Tokenize(word); err != nil {
			b.Fatal(err)
		}
	}
}

// Opening the starter's tokenizer.
func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		open(b, "models/starter/tokenizer")
	}
}
