package tokenizer

import (
	"fmt"
	"maps"
	"slices"
)

// special is what becomes of the settings: the ids every text needs, and the tokens found in texts.
type special struct {
	start, end, unknown, pad int32
	added                    []added
}

// defaults are the tokens the reference takes for keys that no file has.
func defaults() map[string]string {
	return map[string]string{startKey: startName, endKey: endName, unknownKey: endName, padKey: endName}
}

// resolve gives every token its id, from the vocabulary or a declaration; config is where a key would
// be that is missing. The reference would invent ids for tokens that have none, beyond the embedding
// of the model.
func (s *settings) resolve(v *vocabulary, config place) (*special, error) {
	r := resolver{vocabulary: v, places: map[string]int{}, named: map[form]bool{}}
	for _, id := range slices.Sorted(maps.Keys(s.declared)) {
		if err := r.declare(s.declared[id]); err != nil {
			return nil, err
		}
	}
	var out special
	ids := map[string]*int32{startKey: &out.start, endKey: &out.end, unknownKey: &out.unknown, padKey: &out.pad}
	declared := len(r.added)
	for _, key := range specialKeys() {
		t, ok := s.special[key]
		if !ok {
			t = namedToken{tokenJSON{Content: defaults()[key], Special: true, bare: true}, config.in(key)}
		}
		id := ids[key]
		if id == nil && t.Content == "" {
			continue
		}
		if err := r.name(t, declared); err != nil {
			return nil, err
		}
		if id != nil {
			*id = r.added[r.places[t.Content]].id
		}
	}
	for _, t := range s.extra {
		if err := r.name(t, declared); err != nil {
			return nil, err
		}
	}
	out.added = r.added
	return &out, nil
}

// resolver collects added tokens.
type resolver struct {
	*vocabulary
	added  []added
	places map[string]int // in added, by text
	fresh  int            // declared tokens that are not in the vocabulary
	named  map[form]bool
}

// form is what makes two ways to name a token the same for the reference.
type form struct {
	text                      string
	bare, normalized, special bool
}

// declare adds a token that comes with its id. One that is not in the vocabulary follows it: the
// reference numbers them so, whatever the file says.
func (r *resolver) declare(t namedToken) error {
	id, known := r.ids[t.Content]
	if !known {
		id = int32(len(r.ids) + r.fresh)
		r.fresh++
	}
	switch {
	case t.ID != int64(id) || int(id) >= maxEntries:
		return t.at.fail(fmt.Sprintf("the id %d for %s", id, quote(t.Content)), fmt.Sprint(t.ID))
	case !known && r.gaps():
		return t.at.fail("tokens of the vocabulary, which has gaps", quote(t.Content))
	}
	return r.put(t, id)
}

// gaps says that the vocabulary uses ids beyond its length.
func (r *resolver) gaps() bool {
	for _, id := range r.ids {
		if int(id) >= len(r.ids) {
			return true
		}
	}
	return false
}

// name adds a token that has no id of its own. A declared token stays as it is declared. Of several
// forms of one text the last new one says how the token is found.
func (r *resolver) name(t namedToken, declared int) error {
	place, again := r.places[t.Content]
	f := form{t.Content, t.bare, t.normalized(), t.Special}
	if again && (place < declared || r.named[f]) {
		return nil
	}
	r.named[f] = true
	if again {
		r.added[place].normalized = t.normalized()
		return nil
	}
	id, known := r.ids[t.Content]
	if !known {
		return t.at.fail("a token of the vocabulary", quote(t.Content))
	}
	return r.put(t, id)
}

func (r *resolver) put(t namedToken, id int32) error {
	_, again := r.places[t.Content]
	switch {
	case t.Content == "":
		return t.at.fail("a text", quote(""))
	case again:
		return t.at.fail("one declaration of "+quote(t.Content), "two")
	case t.SingleWord:
		return t.at.fail("single_word false", "true")
	case len(r.added) == maxAdded:
		return t.at.fail(fmt.Sprintf("at most %d added tokens", maxAdded), "more")
	}
	r.places[t.Content] = len(r.added)
	r.added = append(r.added, added{t.Content, id, t.normalized()})
	return nil
}
