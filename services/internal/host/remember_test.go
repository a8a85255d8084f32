package host

import (
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// TestRemember: a child that has not read its files yet has the digests of the one before, of the same files alone.
func TestRemember(t *testing.T) {
	h := &Host{digests: map[string]stage.Component{}}
	for i, c := range []struct{ stamp, digest, want string }{
		{"", "", ""},
		{"one", "", ""},
		{"one", "a", "a"},
		{"one", "", "a"}, // the next child
		{"two", "", ""},  // other files
		{"", "", ""},     // that cannot be looked at, or that nobody else's are like any more
		{"one", "", "a"},
		{"two", "b", "b"},
		{"one", "", ""},
		{"two", "", "b"},
	} {
		components := []stage.Component{{Name: "other", Edition: stage.Edition{Stamp: c.stamp}}, {Name: "m", Edition: stage.Edition{Stamp: c.stamp}, Digest: c.digest}}
		if h.remember(components); components[1].Digest != c.want || components[0].Digest != "" {
			t.Errorf("call %d: %+v, want %q", i, components, c.want)
		}
	}
}
