package fleet

import "testing"

func TestFirst(t *testing.T) {
	type digests = map[string]string
	for name, c := range map[string]struct {
		services []digests
		want     string // for m
	}{
		"alone":                            {[]digests{{"m": ""}}, "m"},
		"nobody has it":                    {[]digests{{"a": "1"}}, "m"},
		"equal":                            {[]digests{{"a": "1", "b": "1", "m": "1", "z": "1"}}, "a"},
		"the first itself":                 {[]digests{{"m": "1", "z": "1"}}, "m"},
		"another":                          {[]digests{{"a": "2", "m": "1"}}, "m"},
		"not known yet":                    {[]digests{{"a": "", "m": ""}}, "m"},
		"in every service":                 {[]digests{{"a": "1", "m": "1"}, {"a": "1", "m": "1"}}, "a"},
		"in one service only":              {[]digests{{"a": "1", "m": "1"}, {"m": "1"}}, "m"},
		"the second in every service":      {[]digests{{"a": "1", "b": "1", "m": "1"}, {"b": "1", "m": "1"}}, "b"},
		"another service has the other":    {[]digests{{"a": "1", "m": "1"}, {"a": "1"}}, "a"},
		"another service has another one":  {[]digests{{"a": "1", "m": "1"}, {"a": "2"}}, "m"},
		"not known in another service yet": {[]digests{{"a": "1", "m": "1"}, {"a": "1", "m": ""}}, "m"},
		"other files in another service":   {[]digests{{"a": "1", "m": "1"}, {"a": "1", "m": "2"}}, "m"},
	} {
		for range 4 { // whatever order maps have
			if got := first(c.services, "m"); got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
	}
}
