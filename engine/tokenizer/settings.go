package tokenizer

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The keys of the special tokens a CLIP tokenizer needs.
const (
	startKey   = "bos_token"
	endKey     = "eos_token"
	unknownKey = "unk_token"
	padKey     = "pad_token"
)

// specialKeys are the keys of all special tokens, in the reference's order.
func specialKeys() []string {
	return []string{startKey, endKey, unknownKey, "sep_token", padKey, "cls_token", "mask_token"}
}

// settings is what the files of a folder say about tokens beside the vocabulary.
type settings struct {
	declared map[int64]namedToken  // by id
	special  map[string]namedToken // by key, without content where the file has null
	extra    []namedToken
}

// namedToken is a token and where it stands.
type namedToken struct {
	tokenJSON
	at place
}

// tokenJSON is how the files write a token: a string, or an object.
type tokenJSON struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	Normalized *bool  `json:"normalized"` // if it is not there: when the token is not special
	Special    bool   `json:"special"`
	SingleWord bool   `json:"single_word"`
	bare       bool   // a string
}

// UnmarshalJSON reads both forms. A bare string is a special token.
func (t *tokenJSON) UnmarshalJSON(data []byte) error {
	*t = tokenJSON{}
	if data[0] == '"' {
		t.Special, t.bare = true, true
		return json.Unmarshal(data, &t.Content)
	}
	type object tokenJSON
	return json.Unmarshal(data, (*object)(t))
}

func (t *tokenJSON) normalized() bool {
	if t.Normalized != nil {
		return *t.Normalized
	}
	return !t.Special
}

// entry is the value of one key of a file.
type entry struct {
	at      place
	data    json.RawMessage
	special bool // from special_tokens_map.json, where every token is special
}

// readSettings reads the files in the reference's order of precedence; whole is nil for a folder
// without tokenizer.json.
func (f folder) readSettings(whole *tokenizerJSON) (*settings, error) {
	entries, err := f.readEntries(configFile)
	if err != nil {
		return nil, err
	}
	if err := checkConfig(entries); err != nil {
		return nil, err
	}
	s := &settings{declared: map[int64]namedToken{}, special: map[string]namedToken{}}
	if decoder, ok := entries["added_tokens_decoder"]; ok { // the other files do not count then
		if err := s.declareDecoder(decoder); err != nil {
			return nil, err
		}
		return s, s.readTokens(entries)
	}
	more, err := f.readEntries(specialFile)
	if err != nil {
		return nil, err
	}
	for key, e := range more {
		e.special = true
		entries[key] = e
	}
	if err := s.readTokens(entries); err != nil {
		return nil, err
	}
	added, err := f.readEntries(addedFile)
	if err != nil {
		return nil, err
	}
	if err := s.declareAdded(added); err != nil {
		return nil, err
	}
	if whole != nil {
		for _, t := range whole.added { // over those of added_tokens.json
			s.declared[t.ID] = namedToken{t, whole.at.in("added_tokens")}
		}
	}
	return s, nil
}

// readEntries reads the keys of a small file. There are none if it is missing.
func (f folder) readEntries(file string) (map[string]entry, error) {
	entries := map[string]entry{}
	data, err := f.read(file, maxConfigBytes)
	if err != nil || data == nil {
		return entries, err
	}
	at := place{f.path(file), ""}
	var object map[string]json.RawMessage
	if err := decode(at, data, &object); err != nil {
		return nil, err
	}
	for key, value := range object {
		entries[key] = entry{at: at.in(shorten(key)), data: value}
	}
	return entries, nil
}

// checkConfig refuses what would make other tokens than this package does.
func checkConfig(entries map[string]entry) error {
	for key, accepted := range map[string][]string{
		"tokenizer_class":      {`"CLIPTokenizer"`, `"CLIPTokenizerFast"`},
		"padding_side":         {`"right"`},
		"truncation_side":      {`"right"`},
		"split_special_tokens": {"false"},
		// The reference takes these of a file too, though only programs pass them.
		"init_inputs":                   {"[]"},
		"merges":                        nil,
		"model_specific_special_tokens": {"{}"},
		"post_processor":                nil,
		"tokenizer":                     nil,
		"tokenizer_object":              nil,
		"tokenizer_padding":             nil,
		"tokenizer_truncation":          nil,
		"vocab":                         nil,
	} {
		e := entries[key]
		if !absent(e.data) && !slices.Contains(accepted, string(e.data)) {
			return e.at.fail(strings.Join(append([]string{"null"}, accepted...), " or "), shorten(string(e.data)))
		}
	}
	return nil
}

// declareDecoder reads added_tokens_decoder: ids and tokens.
func (s *settings) declareDecoder(decoder entry) error {
	var tokens map[string]tokenJSON
	if err := decode(decoder.at, decoder.data, &tokens); err != nil {
		return err
	}
	for key, t := range tokens {
		id, err := strconv.ParseInt(key, 10, 64)
		if err != nil {
			return decoder.at.fail("ids", quote(key))
		}
		t.ID = id
		if err := s.declare(namedToken{t, decoder.at.in(key)}); err != nil {
			return err
		}
	}
	return nil
}

// declareAdded reads added_tokens.json: tokens and ids. A token that no key calls special is not.
func (s *settings) declareAdded(added map[string]entry) error {
	special := map[string]bool{}
	for _, t := range s.special {
		special[t.Content] = true
	}
	for _, t := range s.extra {
		special[t.Content] = true
	}
	for content, e := range added {
		t := tokenJSON{Content: content, Special: special[content]}
		if err := decode(e.at, e.data, &t.ID); err != nil {
			return err
		}
		if err := s.declare(namedToken{t, e.at}); err != nil {
			return err
		}
	}
	return nil
}

func (s *settings) declare(t namedToken) error {
	if _, twice := s.declared[t.ID]; twice {
		return t.at.fail("an id of its own", fmt.Sprint(t.ID))
	}
	s.declared[t.ID] = t
	return nil
}

// readTokens reads the tokens that keys name.
func (s *settings) readTokens(entries map[string]entry) error {
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		e := entries[key]
		var err error
		switch {
		case slices.Contains(specialKeys(), key):
			t := namedToken{at: e.at}
			err = decodeSmall(e.at, e.data, &t.tokenJSON)
			t.Special = t.Special || e.special
			s.special[key] = t
		case absent(e.data):
		case key == "additional_special_tokens", key == "extra_special_tokens":
			err = s.readExtra(e)
		case strings.HasSuffix(key, "_token") && e.data[0] == '"':
			t := namedToken{at: e.at}
			err = decode(e.at, e.data, &t.tokenJSON)
			s.extra = append(s.extra, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readExtra reads an array of tokens, or an object of names and tokens.
func (s *settings) readExtra(e entry) error {
	var list []tokenJSON
	if e.data[0] == '{' {
		var byName map[string]tokenJSON
		if err := decode(e.at, e.data, &byName); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			list = append(list, byName[name])
		}
	} else if err := decode(e.at, e.data, &list); err != nil {
		return err
	}
	for _, t := range list {
		s.extra = append(s.extra, namedToken{t, e.at})
	}
	return nil
}
