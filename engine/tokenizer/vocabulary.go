package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// vocabulary is what vocab.json and merges.txt, or the model of a tokenizer.json, say.
type vocabulary struct {
	ids      map[string]int32
	merges   [][2]string // in the order of their ranks
	mergesAt place
}

// place is where in which file something stands, for errors.
type place struct{ file, field string }

func (p place) in(field string) place {
	if p.field != "" {
		field = p.field + "." + field
	}
	return place{p.file, field}
}

func (p place) fail(expected, got string) *Error {
	return &Error{File: p.file, Field: p.field, Expected: expected, Got: got}
}

// parseVocab reads a JSON object of tokens and their ids, one entry at a time, so that a hostile
// file is refused before it is held.
func parseVocab(at place, data []byte) (map[string]int32, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, at.fail("a JSON object of tokens and ids", describe(t, err))
	}
	ids := map[string]int32{}
	tokens := map[int32]string{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, at.fail("a token", describe(nil, err))
		}
		value, err := d.Token()
		if err != nil {
			return nil, at.fail("an id", describe(nil, err))
		}
		token := key.(string)
		entry := at.in(quote(token))
		id, ok := parseID(value)
		if !ok {
			return nil, entry.fail(fmt.Sprintf("an id from 0 to %d", maxEntries-1), describe(value, nil))
		}
		if _, twice := ids[token]; twice {
			return nil, entry.fail("one entry", "two")
		}
		if same, twice := tokens[id]; twice {
			return nil, entry.fail("an id of its own", fmt.Sprintf("%d, the id of %s", id, quote(same)))
		}
		ids[token], tokens[id] = id, token
	}
	if _, err := d.Token(); err != nil {
		return nil, at.fail("the end of the object", describe(nil, err))
	}
	if t, err := d.Token(); err != io.EOF {
		return nil, at.fail("one JSON object", describe(t, err)+" after it")
	}
	return ids, nil
}

// parseID reads an id; the bound on it bounds the number of entries too, as no id is there twice.
func parseID(t json.Token) (int32, bool) {
	n, ok := t.(json.Number)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseInt(string(n), 10, 32)
	return int32(id), err == nil && 0 <= id && id < maxEntries
}

// describe says what stands where something else was expected.
func describe(t json.Token, err error) string {
	switch t := t.(type) {
	case string:
		return quote(t)
	case json.Number:
		return shorten(string(t))
	case nil:
		if err != nil {
			return "invalid JSON: " + err.Error()
		}
		return "null"
	}
	return fmt.Sprint(t)
}

// parseMergesText reads merges.txt: two tokens a line. As in the reference every line that starts
// with "#version" is a comment, and an empty line is a mistake.
func parseMergesText(at place, data []byte) ([][2]string, error) {
	var merges [][2]string
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		if strings.HasPrefix(line, "#version") {
			continue
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		m, ok := parseMerge(line)
		if !ok {
			return nil, at.in(fmt.Sprintf("line %d", number)).fail("two tokens with a space between them", quote(line))
		}
		if len(merges) == maxEntries {
			return nil, at.fail(fmt.Sprintf("at most %d merges", maxEntries), "more")
		}
		merges = append(merges, m)
	}
	return merges, nil
}

// parseMergesJSON reads the merges of a tokenizer.json: pairs, or strings with a space as older
// files have them.
func parseMergesJSON(at place, data []byte) ([][2]string, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, at.fail("an array of merges", describe(t, err))
	}
	var merges [][2]string
	for d.More() {
		m, ok := nextMerge(d)
		if !ok {
			return nil, at.in(fmt.Sprint(len(merges))).fail("two tokens", "something else")
		}
		if len(merges) == maxEntries {
			return nil, at.fail(fmt.Sprintf("at most %d merges", maxEntries), "more")
		}
		merges = append(merges, m)
	}
	return merges, nil
}

func nextMerge(d *json.Decoder) (two [2]string, ok bool) {
	t, _ := d.Token() // nil where it fails
	if s, ok := t.(string); ok {
		return parseMerge(s)
	}
	if t != json.Delim('[') {
		return two, false
	}
	for i := range two {
		t, _ := d.Token()
		if two[i], ok = t.(string); !ok {
			return two, false
		}
	}
	t, _ = d.Token()
	return two, t == json.Delim(']')
}

func parseMerge(s string) ([2]string, bool) {
	left, right, ok := strings.Cut(s, " ")
	return [2]string{left, right}, ok && left != "" && right != "" && !strings.Contains(right, " ")
}

// bytePairs builds the model. A byte without a token becomes unknown, as in the reference. Of equal
// pairs the last counts, also as in the reference.
func (v *vocabulary) bytePairs(unknown int32) (bytePairs, error) {
	m := bytePairs{merges: make(map[pair]merge, len(v.merges))}
	for b, r := range byteRunes() {
		m.inner[b] = v.idOr(string(r), unknown)
		m.last[b] = v.idOr(string(r)+endOfWord, unknown)
	}
	for rank, two := range v.merges {
		var ids [3]int32
		for i, token := range [...]string{two[0], two[1], two[0] + two[1]} {
			id, ok := v.ids[token]
			if !ok {
				return bytePairs{}, v.mergesAt.in(fmt.Sprintf("merge %d", rank)).fail("tokens of the vocabulary", quote(token))
			}
			ids[i] = id
		}
		m.merges[pair{ids[0], ids[1]}] = merge{rank: uint32(rank), id: ids[2]}
	}
	return m, nil
}

func (v *vocabulary) idOr(token string, otherwise int32) int32 {
	if id, ok := v.ids[token]; ok {
		return id
	}
	return otherwise
}
