// Package configtest walks the keys of a class's config that the reference knows.
package configtest

import (
	_ "embed"
	"encoding/json"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/config"
)

// reference is the keys by class, written by testdata/golden/wild/make_wild.py.
//
//go:embed testdata/reference_keys.json
var reference []byte

// Nonsense is a value, as JSON, that no key takes.
const Nonsense = `["nonsense"]`

// Walk tries every key of a class's config with a value that makes no sense, and no key with an empty name. try gives
// all that follows from the config, or the error. A key is read, and then the error names it, or it is in the table of
// irrelevant keys, and then nothing changes.
func Walk(t *testing.T, class string, try func(key string) (follows string, err error)) {
	t.Helper()
	var keys struct{ Classes map[string][]string }
	if err := json.Unmarshal(reference, &keys); err != nil {
		t.Fatal(err)
	}
	if len(keys.Classes[class]) == 0 {
		t.Fatalf("no keys of %s", class)
	}
	plain, err := try("")
	if err != nil {
		t.Fatalf("%s: %v", class, err)
	}
	irrelevant := config.Irrelevant(class)
	for _, key := range keys.Classes[class] {
		got, err := try(key)
		reason := irrelevant[key]
		delete(irrelevant, key)
		switch {
		case err != nil && !strings.Contains(err.Error(), key):
			t.Errorf("%s %s: the error does not name it: %v", class, key, err)
		case err != nil && reason != "":
			t.Errorf("%s %s is in the table of irrelevant keys, but: %v", class, key, err)
		case err == nil && reason == "":
			t.Errorf("%s %s is neither read nor in the table of irrelevant keys", class, key)
		case err == nil && got != plain:
			t.Errorf("%s %s is in the table of irrelevant keys and changes\n%s to\n%s", class, key, plain, got)
		}
	}
	for key := range irrelevant {
		t.Errorf("%s has no key %s, which is in the table of irrelevant ones", class, key)
	}
}
