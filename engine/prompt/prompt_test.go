package prompt

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// letters is a tokenizer of one token for each letter.
type letters struct{}

func (letters) Start() int32 { return 1000 }
func (letters) End() int32   { return 1001 }
func (letters) Pad() int32   { return 1002 }

func (letters) Words(text string) (ids []int32, err error) {
	for _, r := range strings.ReplaceAll(text, " ", "") {
		ids = append(ids, r)
	}
	return ids, nil
}

// TestSchedule: what the reference says of its own examples, and of the edges of its grammar.
func TestSchedule(t *testing.T) {
	all := func(text string) []Period { return []Period{{10, text}} }
	two := func(until int, before, after string) []Period { return []Period{{until, before}, {10, after}} }
	for text, want := range map[string][]Period{
		"test":                     all("test"),
		"":                         all(""),
		"a [b:3]":                  two(3, "a ", "a b"),
		"a [b: 3 ]":                two(3, "a ", "a b"),
		"a [[[b]]:2]":              two(2, "a ", "a [[b]]"),
		"[(a:2):3]":                two(3, "", "(a:2)"),
		"a [b : c : 1] d":          two(1, "a b  d", "a  c  d"),
		"a[b:[c:d:2]:1]e":          {{1, "abe"}, {2, "ace"}, {10, "ade"}},
		"a [unbalanced":            all("a [unbalanced"),
		"a [b:.5] c":               two(5, "a  c", "a b c"),
		"a [b::.5] c":              two(5, "a b c", "a  c"),
		"((a][:b:c [d:3]":          two(3, "((a][:b:c ", "((a][:b:c d"),
		"[a:b:1.0]":                all("a"),
		"[a:b:1.5]":                all("a"),
		"[a:b:1]":                  two(1, "a", "b"),
		"[a:b:12]":                 all("a"),
		"[a:b:0]":                  all("b"),
		"[a:b:-3]":                 all("b"),
		"[a:b:c:3]":                all("[a:b:c:3]"),
		"[a:b:x]":                  all("[a:b:x]"),
		"[a:b:0x1]":                all("[a:b:0x1]"),
		"[a:b:1e400]":              all("a"),
		`\[a:b:3]`:                 all(`\[a:b:3]`),
		`[a\:b:3]`:                 two(3, "", `a\:b`),
		"x | y [a:3]":              all("x | y [a:3]"),
		`[a:3] \`:                  all(`[a:3] \`),
		"(x [a:b:3]:1.2)":          two(3, "(x a:1.2)", "(x b:1.2)"),
		"[a:(b:3]":                 all("[a:(b:3]"),
		"[[a|b]:c:1]":              {{1, "a"}, {2, "c"}, {3, "c"}, {4, "c"}, {5, "c"}, {6, "c"}, {7, "c"}, {8, "c"}, {9, "c"}, {10, "c"}},
		"[a|b|[c:d:5]]":            {{1, "a"}, {2, "b"}, {3, "c"}, {4, "a"}, {5, "b"}, {6, "d"}, {7, "a"}, {8, "b"}, {9, "d"}, {10, "a"}},
		"[fe|]male":                {{1, "female"}, {2, "male"}, {3, "female"}, {4, "male"}, {5, "female"}, {6, "male"}, {7, "female"}, {8, "male"}, {9, "female"}, {10, "male"}},
		"[blue:0.5] (toy:1.4) [x]": two(5, " (toy:1.4) [x]", "blue (toy:1.4) [x]"),
	} {
		got, err := Schedule(text, 10)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got)\n%s", text, err, diff)
		}
	}
}

func TestAt(t *testing.T) {
	periods := []Period{{3, "a"}, {10, "b"}}
	for step, want := range []int{0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1} { // more than there are: evaluations of some samplers
		if got := At(periods, step); got != want {
			t.Errorf("step %d: period %d, want %d", step, got, want)
		}
	}
}

// TestBounds: what is too much is refused, by what would be accepted.
func TestBounds(t *testing.T) {
	split := func(text string) error {
		parts, err := Parse(text)
		if err == nil {
			_, err = Split(parts, letters{}, []Embedding{{"+", []int32{'+'}, 6}}, 7)
		}
		return err
	}
	schedule := func(text string) error { _, err := Schedule(text, 1000); return err }
	for what, c := range map[string]struct {
		err      error
		expected string // empty: none
	}{
		"64 brackets":           {split(strings.Repeat("(", 32) + "x" + strings.Repeat("[", 32)), ""},
		"65 brackets":           {split(strings.Repeat("(", 33) + "x" + strings.Repeat("[", 32)), "at most 64 brackets open at once"},
		"64 pairs":              {schedule(strings.Repeat("[", 64) + "x:3" + strings.Repeat("]", 64)), ""},
		"65 pairs":              {schedule(strings.Repeat("[", 65) + "x:3" + strings.Repeat("]", 65)), "at most 64 brackets open at once"},
		"a large weight":        {split("(a:1000) (b:-1000)"), ""},
		"a larger weight":       {split("((a:1000))"), "weights from -1000 to 1000"},
		"infinite weight":       {split("(a:" + strings.Repeat("9", 400) + ")"), "a number between the colon and the bracket, or \\) for a bracket that is text"},
		"no number":             {split("(a:1.2.3)"), "a number between the colon and the bracket, or \\) for a bracket that is text"},
		"no number, no bracket": {split("a:1.2.3)"), ""},
		"32 chunks":             {split(strings.Repeat("x", 32*5)), ""},
		"33 chunks":             {split(strings.Repeat("x", 32*5+1)), "at most 32 chunks of 5 tokens"},
		"too many vectors":      {split("+"), "at most 5 vectors of an embedding"},
		"32 texts":              {schedule("[" + strings.Join(strings.Split("abcdefghijklmnopqrstuvwxyzABCDEF", ""), "|") + "]"), ""},
		"33 texts":              {schedule("[" + strings.Join(strings.Split("abcdefghijklmnopqrstuvwxyzABCDEFG", ""), "|") + "]"), "a prompt that becomes at most 32 different texts"},
	} {
		var e *Error
		switch {
		case c.expected == "" && c.err != nil:
			t.Errorf("%s: %v", what, c.err)
		case c.expected != "" && (!errors.As(c.err, &e) || e.Expected != c.expected || e.Got == ""):
			t.Errorf("%s: %v, want one that expects %s", what, c.err, c.expected)
		}
	}
}

// TestMovedEmbedding: the vectors of an embedding move to the next chunk with the words behind a comma.
func TestMovedEmbedding(t *testing.T) {
	parts, err := Parse("ab,(+c:2)d")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Split(parts, letters{}, []Embedding{{"e", []int32{'+', 'x'}, 1}, {"f", []int32{'+'}, 2}}, 8)
	want := []Chunk{
		{IDs: []int32{1000, 'a', 'b', ',', 1001, 1002, 1002, 1002}, Weights: []float64{1, 1, 1, 1, 1, 1, 1, 1}},
		{IDs: []int32{1000, 0, 0, 'c', 'd', 1001, 1002, 1002}, Weights: []float64{1, 2, 2, 2, 1, 1, 1, 1}, Embeddings: []Placed{{1, "f"}}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}

// TestCommaRule: what follows a comma moves to the next chunk if the comma is one of the last 20 places.
func TestCommaRule(t *testing.T) {
	for before, want := range map[int]int{54: 75, 55: 56, 73: 74, 74: 75} { // of the first chunk
		parts, err := Parse(strings.Repeat("x", before) + "," + strings.Repeat("y", 30))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Split(parts, letters{}, nil, 77)
		if err != nil || len(got) != 2 || slices.Index(got[0].IDs, 1001) != 1+want || slices.Index(got[1].IDs, 1001) != 1+before+31-want {
			t.Errorf("a comma behind %d tokens: %v, %v, want %d in the first chunk", before, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"a (fox:1.3) [b]", `\(a\) (b: 0.7 ) ) ]`, "x BREAK y", "((a", "(a:1.2.3)", "aBREAK BREAK\n", "(a BREAK b)"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parts, err := Parse(text)
		if err != nil {
			return
		}
		length := 0
		for i, p := range parts {
			if length += len(p.Text); i > 0 && p.Weight == parts[i-1].Weight {
				t.Errorf("%q: neighbours of equal weight %v", text, parts)
			}
		}
		if len(parts) == 0 || length > len(text) {
			t.Errorf("%q: parts %v", text, parts)
		}
		if !strings.ContainsAny(text, `()[]\`) && !strings.Contains(text, breakWord) && !slices.Equal(parts, []Part{{text, 1}}) {
			t.Errorf("plain %q: parts %v", text, parts)
		}
		chunks, err := Split(parts, letters{}, []Embedding{{"e", []int32{'a', 'b'}, 3}}, 9)
		for _, c := range chunks {
			if err != nil || len(c.IDs) != 9 || len(c.Weights) != 9 || c.IDs[0] != 1000 || !slices.Contains(c.IDs, 1001) {
				t.Errorf("%q: chunk %v, %v", text, c, err)
			}
			for _, e := range c.Embeddings {
				if e.At < 1 || e.At > 5 || !slices.Equal(c.IDs[e.At:e.At+3], []int32{0, 0, 0}) {
					t.Errorf("%q: embedding at %d of %v", text, e.At, c.IDs)
				}
			}
		}
	})
}

func FuzzSchedule(f *testing.F) {
	for _, text := range []string{"a [b:c:3]", "[a|b]", "[a:[b|c]:.5]", `\[a`, "((a][:b:c [d:3]", "[a:1e9]", "x|y", "[:3]"} {
		f.Add(text, 10)
	}
	f.Fuzz(func(t *testing.T, text string, steps int) {
		if steps < 1 || steps > 1000 {
			return
		}
		periods, err := Schedule(text, steps)
		if err != nil {
			return
		}
		last := 0
		for _, p := range periods {
			if p.Until <= last || len(p.Text) > len(text) {
				t.Errorf("%q: %v", text, periods)
			}
			last = p.Until
		}
		if last != steps || !strings.ContainsAny(text, ":|") && !slices.Equal(periods, []Period{{steps, text}}) {
			t.Errorf("%q: %v", text, periods)
		}
	})
}
