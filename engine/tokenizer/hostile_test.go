package tokenizer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/triptych-serving/triptych/engine/config/configtest"
)

// small is a complete folder of few tokens: every byte would be unknown but a, b and c.
func small() files {
	return files{
		vocabFile:  `{"a":0,"b":1,"a</w>":2,"b</w>":3,"ab</w>":4,"<|startoftext|>":5,"<|endoftext|>":6}`,
		mergesFile: "#version: 0.2\na b</w>\n",
	}
}

// smallWhole is the same folder as one tokenizer.json.
func smallWhole() files {
	return files{tokenizerFile: `{"added_tokens":[{"id":5,"content":"<|startoftext|>","special":true},{"id":6,"content":"<|endoftext|>","special":true}],` +
		`"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace"},{"type":"Lowercase"}]},` +
		`"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split"},{"type":"ByteLevel"}]},` +
		`"post_processor":{"type":"RobertaProcessing","sep":["<|endoftext|>",6],"cls":["<|startoftext|>",5]},` +
		`"padding":{"direction":"Right"},"truncation":null,` +
		`"model":{"type":"BPE","end_of_word_suffix":"</w>","dropout":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,` +
		`"vocab":` + small()[vocabFile] + `,"merges":[["a","b</w>"]]}}`}
}

func TestEveryKeyOfTheReference(t *testing.T) {
	configtest.Walk(t, "CLIPTokenizer", func(key string) (string, error) {
		f := small()
		f[configFile] = `{"` + key + `": ` + configtest.Nonsense + `}`
		dir := t.TempDir()
		for name, data := range f {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		length, err := MaxLength(dir)
		if err != nil {
			return "", err
		}
		c, err := Open(dir)
		if err != nil {
			return "", err
		}
		ids, err := c.Tokenize("  AB a\u0308b ab<|endoftext|>")
		return fmt.Sprint(length, ids, c.Start(), c.End(), c.Pad()), err
	})
}

// The two folders the hostile ones are made from do work, or each refusal below would prove nothing.
func TestSmallFolders(t *testing.T) {
	older := smallWhole()
	older[tokenizerFile] = strings.Replace(older[tokenizerFile], `["a","b</w>"]`, `"a b</w>"`, 1)
	older[tokenizerFile] = strings.Replace(older[tokenizerFile], `"type":"BPE",`, ``, 1)
	windows := small()
	windows[mergesFile] = strings.ReplaceAll(windows[mergesFile], "\n", "\r\n")
	for name, f := range map[string]files{"classic": small(), "whole": smallWhole(), "whole, older": older, "carriage returns": windows} {
		c, err := f.open()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		check(t, c, "AB a\u0308b", []int32{5, 4, 6, 6, 3, 6}) // ä composes, to two unknown bytes
		if c.VocabSize() != 7 || c.Start() != 5 || c.End() != 6 || c.Pad() != 6 {
			t.Errorf("%s: size %d, start %d, end %d, pad %d", name, c.VocabSize(), c.Start(), c.End(), c.Pad())
		}
	}
}

// Every mistake is refused with an Error that names the file and the entry. old is replaced by new in
// the file; without old, new is the whole file.
func TestHostileFolders(t *testing.T) {
	longKey := strings.Repeat("k", 5000)
	for _, test := range []struct {
		file, old, new string
		field          string // of the error: its beginning
	}{
		{vocabFile, "", "", ""},
		{vocabFile, "", "[]", ""},
		{vocabFile, "", "null", ""},
		{vocabFile, "", `{"a":0`, ""},
		{vocabFile, "", `{"a":0}}`, ""},
		{vocabFile, "", `{"a":0} {}`, ""},
		{vocabFile, "", `{"a" 0}`, ""},
		{vocabFile, `"a":0`, `"a":-1`, `"a"`},
		{vocabFile, `"a":0`, `"a":1048576`, `"a"`},
		{vocabFile, `"a":0`, `"a":99999999999999999999`, `"a"`},
		{vocabFile, `"a":0`, `"a":0.5`, `"a"`},
		{vocabFile, `"a":0`, `"a":1e3`, `"a"`},
		{vocabFile, `"a":0`, `"a":"0"`, `"a"`},
		{vocabFile, `"a":0`, `"a":null`, `"a"`},
		{vocabFile, `"a":0`, `"a":{"b":1}`, `"a"`},
		{vocabFile, `"a":0`, `"a":1`, `"b"`}, // one id twice
		{vocabFile, `"b":1`, `"a":1`, `"a"`}, // one token twice
		{vocabFile, `"a":0`, `"` + longKey + `":-1`, `"kkk`},
		{mergesFile, "a b</w>", "a b</w> ", "line 2"},
		{mergesFile, "a b</w>", "ab", "line 2"},
		{mergesFile, "a b</w>", "", "line 2"},
		{mergesFile, "a b</w>", " b", "line 2"},
		{mergesFile, "a b</w>", "a  b", "line 2"},
		{mergesFile, "a b</w>", "x b</w>", "merge 0"}, // left, right and whole are not tokens
		{mergesFile, "a b</w>", "a x</w>", "merge 0"},
		{mergesFile, "a b</w>", "b a</w>", "merge 0"},
		{configFile, "", "", ""},
		{configFile, "", "[1]", ""},
		{configFile, "", `{"tokenizer_class":"T5Tokenizer"}`, "tokenizer_class"},
		{configFile, "", `{"tokenizer_class":7}`, "tokenizer_class"},
		{configFile, "", `{"padding_side":"left"}`, "padding_side"},
		{configFile, "", `{"truncation_side":"left"}`, "truncation_side"},
		{configFile, "", `{"split_special_tokens":true}`, "split_special_tokens"},
		{configFile, "", `{"bos_token":"<s>"}`, "bos_token"},
		{configFile, "", `{"eos_token":null}`, "eos_token"},
		{configFile, "", `{"eos_token":""}`, "eos_token"},
		{configFile, "", `{"unk_token":7}`, "unk_token"},
		{configFile, "", `{"pad_token":["<|endoftext|>"]}`, "pad_token"},
		{configFile, "", `{"pad_token":{"content":7}}`, "pad_token"},
		{configFile, "", `{"pad_token":{"content":"a","single_word":true}}`, "pad_token"},
		{configFile, "", `{"additional_special_tokens":["<x>"]}`, "additional_special_tokens"},
		{configFile, "", `{"additional_special_tokens":"a"}`, "additional_special_tokens"},
		{configFile, "", `{"image_token":"<x>"}`, "image_token"},
		{configFile, "", `{"added_tokens_decoder":[]}`, "added_tokens_decoder"},
		{configFile, "", `{"added_tokens_decoder":{"x":{"content":"a"}}}`, "added_tokens_decoder"},
		{configFile, "", `{"added_tokens_decoder":{"1":{"content":"a"}}}`, "added_tokens_decoder.1"}, // a is 0
		{configFile, "", `{"added_tokens_decoder":{"0":{"content":"a"},"00":{"content":"a"}}}`, "added_tokens_decoder"},
		{configFile, "", `{"added_tokens_decoder":{"7":{"content":""}}}`, "added_tokens_decoder.7"},
		{configFile, "", `{"added_tokens_decoder":{"7":null}}`, "added_tokens_decoder.7"},
		{specialFile, "", `{"pad_token":"<x>"}`, "pad_token"},
		{addedFile, "", `{"<x>":8}`, "<x>"}, // the next id is 7
		{addedFile, "", `{"<x>":"7"}`, "<x>"},
		{addedFile, "", `{"<x>":7,"<y>":7}`, "<"},
		{addedFile, "", `{"<x>":-1}`, "<x>"},
		{tokenizerFile, "", "", ""},
		{tokenizerFile, "", "{}", "model"},
		{tokenizerFile, "", `{"model":null}`, "model"},
		{tokenizerFile, "", `{"model":{"type":"Unigram","vocab":[["a",-1.5]]}}`, "model.type"},
		{tokenizerFile, "", strings.Repeat("[", 100_000), ""},
		{tokenizerFile, `"BPE"`, `"WordPiece"`, "model.type"},
		{tokenizerFile, `"BPE"`, `["BPE"]`, "model.type"},
		{tokenizerFile, `"</w>"`, `""`, "model.end_of_word_suffix"},
		{tokenizerFile, `"dropout":null`, `"dropout":0.1`, "model.dropout"},
		{tokenizerFile, `"dropout":null`, `"continuing_subword_prefix":"##"`, "model.continuing_subword_prefix"},
		{tokenizerFile, `"fuse_unk":false`, `"fuse_unk":true`, "model.fuse_unk"},
		{tokenizerFile, `"byte_fallback":false`, `"byte_fallback":true`, "model.byte_fallback"},
		{tokenizerFile, `"ignore_merges":false`, `"ignore_merges":true`, "model.ignore_merges"},
		{tokenizerFile, `"a":0`, `"a":1`, `model.vocab."b"`},
		{tokenizerFile, `"merges":[["a","b</w>"]]`, `"merges":{}`, "model.merges"},
		{tokenizerFile, `"merges":[["a","b</w>"]]`, `"merges":null`, "model.merges"},
		{tokenizerFile, `["a","b</w>"]`, `["a"]`, "model.merges.0"},
		{tokenizerFile, `["a","b</w>"]`, `["a","b</w>","c"]`, "model.merges.0"},
		{tokenizerFile, `["a","b</w>"]`, `["a",7]`, "model.merges.0"},
		{tokenizerFile, `["a","b</w>"]`, `7`, "model.merges.0"},
		{tokenizerFile, `["a","b</w>"]`, `"ab"`, "model.merges.0"},
		{tokenizerFile, `["a","b</w>"]`, `["x","b</w>"]`, "model.merges.merge 0"},
		{tokenizerFile, `"NFC"`, `"NFKC"`, "normalizer"},
		{tokenizerFile, `"ByteLevel"`, `"Whitespace"`, "pre_tokenizer"},
		{tokenizerFile, `"Right"`, `"Left"`, "padding.direction"},
		{tokenizerFile, `"truncation":null`, `"truncation":{"direction":"Left"}`, "truncation.direction"},
		{tokenizerFile, `"truncation":null`, `"truncation":7`, "truncation"},
		{tokenizerFile, `"RobertaProcessing"`, `"BertProcessing"`, "post_processor.type"},
		{tokenizerFile, `["<|endoftext|>",6]`, `["<|endoftext|>",5]`, "post_processor.sep"},
		{tokenizerFile, `["<|startoftext|>",5]`, `["<|startoftext|>"]`, "post_processor.cls"},
		{tokenizerFile, `["<|startoftext|>",5]`, `7`, "post_processor"},
		{tokenizerFile, `"id":5,`, `"id":4,`, "added_tokens"},
		{tokenizerFile, `"id":5,`, `"id":"5",`, "added_tokens"},
	} {
		f := small()
		if test.file == tokenizerFile {
			f = smallWhole()
		}
		content := test.new
		if test.old != "" {
			if content = strings.Replace(f[test.file], test.old, test.new, 1); content == f[test.file] {
				t.Fatalf("%s has no %s", test.file, test.old)
			}
		}
		f[test.file] = content
		c, err := f.open()
		var e *Error
		if c != nil || !errors.As(err, &e) {
			t.Errorf("%s with %.100q: %v, want an Error", test.file, test.new, err)
			continue
		}
		if e.File != test.file || !strings.HasPrefix(e.Field, test.field) || (test.field == "") != (e.Field == "") || e.Expected == "" || e.Got == "" || len(e.Error()) > 500 {
			t.Errorf("%s with %.100q: file %q, field %q in %q; want field %q", test.file, test.new, e.File, e.Field, e, test.field)
		}
	}
}

// Files that are missing, too large or no files, and too many entries.
func TestHostileSizes(t *testing.T) {
	many := func(n int, entry string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, entry, i)
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		file    string
		content string
		inFile  string
	}{
		"merges":               {mergesFile, strings.Repeat("a b</w>\n", maxEntries+1), mergesFile},
		"merges in one file":   {tokenizerFile, strings.Replace(smallWhole()[tokenizerFile], `["a","b</w>"]`, strings.Repeat(`["a","b</w>"],`, maxEntries)+`["a","b</w>"]`, 1), tokenizerFile},
		"a large vocabulary":   {vocabFile, strings.Repeat(" ", maxFileBytes+1), vocabFile},
		"a large config":       {configFile, strings.Repeat(" ", maxConfigBytes+1), configFile},
		"added tokens":         {addedFile, "{" + many(maxAdded, `"<%d>":7,`) + `"<x>":7}`, addedFile},
		"large added_tokens":   {tokenizerFile, strings.Replace(smallWhole()[tokenizerFile], `[{"id":5`, `[`+strings.Repeat(`{},`, maxConfigBytes)+`{"id":5`, 1), tokenizerFile},
		"a large normalizer":   {tokenizerFile, strings.Replace(smallWhole()[tokenizerFile], `{"type":"NFC"}`, strings.Repeat(`{},`, maxConfigBytes)+`{}`, 1), tokenizerFile},
		"a large list of keys": {specialFile, "{" + many(200_000, `"k%d":1,`) + `"k":1}`, specialFile},
	} {
		f := small()
		f[test.file] = test.content
		var e *Error
		if _, err := f.open(); !errors.As(err, &e) || e.File != test.inFile {
			t.Errorf("%s: %v, want an Error of %s", name, err, test.inFile)
		}
	}
	tokens := bytes.NewBufferString("{")
	for i := range maxAdded + 1 {
		if i > 0 {
			tokens.WriteByte(',')
		}
		fmt.Fprintf(tokens, `"<%d>":%d`, i, 7+i)
	}
	f := small()
	f[addedFile] = tokens.String() + "}"
	var e *Error
	if _, err := f.open(); !errors.As(err, &e) || e.Expected != fmt.Sprintf("at most %d added tokens", maxAdded) {
		t.Errorf("%d added tokens: %v", maxAdded+1, err)
	}
	for _, file := range []string{vocabFile, mergesFile} {
		f := small()
		delete(f, file)
		if _, err := f.open(); !errors.As(err, &e) || e.File != file || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without %s: %v, want an Error that is fs.ErrNotExist", file, err)
		}
	}
	m := fstest.MapFS{}
	for name, content := range small() {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	m[configFile] = &fstest.MapFile{Mode: fs.ModeNamedPipe} // opening it would wait for ever
	if _, err := OpenFS(m); !errors.As(err, &e) || e.File != configFile || e.Got != "no regular file" {
		t.Errorf("a pipe: %v, want an Error of %s", err, configFile)
	}
}

// A vocabulary with gaps is fine by itself: size is the largest id plus one. Added tokens are not:
// the reference would give them ids that are taken.
func TestVocabularyWithGaps(t *testing.T) {
	f := small()
	f[vocabFile] = strings.Replace(f[vocabFile], `"<|endoftext|>":6`, `"<|endoftext|>":1048575`, 1)
	c, err := f.open()
	if err != nil || c.VocabSize() != maxEntries || c.End() != maxEntries-1 {
		t.Fatalf("%+v, %v", c, err)
	}
	f[addedFile] = `{"<x>":7}`
	var e *Error
	if _, err := f.open(); !errors.As(err, &e) || e.File != addedFile {
		t.Errorf("an added token: %v, want an Error", err)
	}
}

// Open joins the folder's name into the error, and a folder that is not there is an Error too.
func TestOpenNamesTheFolder(t *testing.T) {
	dir := t.TempDir()
	for _, dir := range []string{dir, filepath.Join(dir, "none"), ""} {
		var e *Error
		if _, err := Open(dir); !errors.As(err, &e) || filepath.Dir(e.File) != filepath.Clean(dir) {
			t.Errorf("Open(%q): %v, want an Error in it", dir, err)
		}
	}
	for name, content := range small() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir); err != nil {
		t.Error(err)
	}
}
