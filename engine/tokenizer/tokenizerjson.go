package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// tokenizerJSON is a tokenizer.json, the one file of the newer layout. The reference takes its
// vocabulary, merges, added tokens and frame, and builds the rest of a CLIP tokenizer itself; here
// the rest is checked to be that of CLIP.
type tokenizerJSON struct {
	vocabulary
	at      place
	added   []tokenJSON
	framing framing
}

// framing is a post_processor: the tokens before and after a text.
type framing struct {
	Type string     `json:"type"`
	Cls  frameToken `json:"cls"`
	Sep  frameToken `json:"sep"`
}

// frameToken is written as ["<|startoftext|>", 49406].
type frameToken struct {
	Name string
	ID   int32
}

func (t *frameToken) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&t.Name, &t.ID})
}

func parseTokenizerJSON(file string, data []byte) (*tokenizerJSON, error) {
	t := &tokenizerJSON{at: place{file, ""}}
	var top struct {
		Model         json.RawMessage `json:"model"`
		Normalizer    json.RawMessage `json:"normalizer"`
		PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
		PostProcessor json.RawMessage `json:"post_processor"`
		AddedTokens   json.RawMessage `json:"added_tokens"`
		Padding       json.RawMessage `json:"padding"`
		Truncation    json.RawMessage `json:"truncation"`
	}
	if err := decode(t.at, data, &top); err != nil {
		return nil, err
	}
	for _, err := range []error{
		checkSteps(t.at.in("normalizer"), top.Normalizer, "NFC", "Replace", "Lowercase"),
		checkSteps(t.at.in("pre_tokenizer"), top.PreTokenizer, "Split", "ByteLevel"),
		checkDirection(t.at.in("padding"), top.Padding),
		checkDirection(t.at.in("truncation"), top.Truncation),
		decodeSmall(t.at.in("added_tokens"), top.AddedTokens, &t.added),
		decodeSmall(t.at.in("post_processor"), top.PostProcessor, &t.framing),
		t.parseModel(t.at.in("model"), top.Model),
	} {
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// parseModel reads the byte pairs. Old files do not name the type.
func (t *tokenizerJSON) parseModel(at place, data json.RawMessage) error {
	m := struct {
		Type         string          `json:"type"`
		Vocab        json.RawMessage `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		Suffix       string          `json:"end_of_word_suffix"`
		Prefix       string          `json:"continuing_subword_prefix"`
		Dropout      float64         `json:"dropout"`
		FuseUnknown  bool            `json:"fuse_unk"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
	}{Type: "BPE"}
	if absent(data) {
		return at.fail("a BPE model", "nothing")
	}
	// The type first: the vocabulary of another model has another form.
	if err := decode(at, data, &struct {
		Type *string `json:"type"`
	}{&m.Type}); err != nil {
		return err
	}
	if m.Type != "BPE" {
		return at.in("type").fail(`"BPE"`, quote(m.Type))
	}
	if err := decode(at, data, &m); err != nil {
		return err
	}
	switch {
	case m.Suffix != endOfWord:
		return at.in("end_of_word_suffix").fail(quote(endOfWord), quote(m.Suffix))
	case m.Prefix != "":
		return at.in("continuing_subword_prefix").fail(`""`, quote(m.Prefix))
	case m.Dropout != 0:
		return at.in("dropout").fail("0", fmt.Sprint(m.Dropout))
	case m.FuseUnknown:
		return at.in("fuse_unk").fail("false", "true")
	case m.ByteFallback:
		return at.in("byte_fallback").fail("false", "true")
	case m.IgnoreMerges:
		return at.in("ignore_merges").fail("false", "true")
	}
	var err error
	if t.ids, err = parseVocab(at.in("vocab"), m.Vocab); err != nil {
		return err
	}
	t.mergesAt = at.in("merges")
	t.merges, err = parseMergesJSON(t.mergesAt, m.Merges)
	return err
}

// checkFrame refuses a post_processor that does not put start before and end after a text.
func (t *tokenizerJSON) checkFrame(start, end int32) error {
	at, f := t.at.in("post_processor"), t.framing
	switch {
	case f.Type == "": // the reference adds one
		return nil
	case f.Type != "RobertaProcessing":
		return at.in("type").fail(`"RobertaProcessing"`, quote(f.Type))
	case f.Cls.ID != start:
		return at.in("cls").fail(fmt.Sprintf("the start token, %d", start), fmt.Sprint(f.Cls.ID))
	case f.Sep.ID != end:
		return at.in("sep").fail(fmt.Sprintf("the end token, %d", end), fmt.Sprint(f.Sep.ID))
	}
	return nil
}

// checkSteps refuses a sequence of other types than the expected ones. None at all is accepted: the
// reference does not read it.
func checkSteps(at place, data json.RawMessage, expected ...string) error {
	if absent(data) {
		return nil
	}
	type step struct {
		Type string `json:"type"`
	}
	var s struct {
		step
		Normalizers   []step `json:"normalizers"`
		Pretokenizers []step `json:"pretokenizers"`
	}
	if err := decodeSmall(at, data, &s); err != nil {
		return err
	}
	var types []string
	for _, step := range append(s.Normalizers, s.Pretokenizers...) {
		types = append(types, step.Type)
	}
	if s.Type != "Sequence" || !slices.Equal(types, expected) {
		return at.fail("a Sequence of "+strings.Join(expected, ", "), quote(strings.Join(append([]string{s.Type}, types...), ", ")))
	}
	return nil
}

// checkDirection refuses to pad or cut on the left.
func checkDirection(at place, data json.RawMessage) error {
	s := struct {
		Direction string `json:"direction"`
	}{right}
	if err := decodeSmall(at, data, &s); err != nil {
		return err
	}
	if !strings.EqualFold(s.Direction, right) {
		return at.in("direction").fail(quote(right), quote(s.Direction))
	}
	return nil
}

const right = "right"

func absent(data json.RawMessage) bool { return len(data) == 0 || string(data) == "null" }

// decodeSmall decodes a part of a file that is nothing or small.
func decodeSmall(at place, data json.RawMessage, to any) error {
	if absent(data) {
		return nil
	}
	if len(data) > maxConfigBytes {
		return at.fail(fmt.Sprintf("at most %d bytes", maxConfigBytes), fmt.Sprint(len(data)))
	}
	return decode(at, data, to)
}

func decode(at place, data []byte, to any) error {
	err := json.Unmarshal(data, to)
	if err == nil {
		return nil
	}
	e := at.fail("JSON", err.Error())
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field != "" {
			at = at.in(wrong.Field)
		}
		e = at.fail("a JSON value for a "+wrong.Type.String(), wrong.Value)
	}
	e.Err = err
	return e
}
