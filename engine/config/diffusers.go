package config

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ParseDiffusers is Parse of a config that diffusers reads: keys that it notes as never written count as absent, and
// which network it is of is said by model_index.json, not here.
func ParseDiffusers(data []byte) (*Reader, error) {
	r, err := Parse(data)
	if err != nil {
		return nil, err
	}
	const class, defaults = "_class_name", "_use_default_values"
	var name string
	var names, unwritten []string
	if raw, ok := r.get(class); ok && (r.IsNull(class) || json.Unmarshal(raw, &name) != nil && json.Unmarshal(raw, &names) != nil) {
		r.Refuse(class, "the name of a class")
	}
	if raw, ok := r.get(defaults); ok && (r.IsNull(defaults) || json.Unmarshal(raw, &unwritten) != nil) {
		r.Refuse(defaults, "a list of keys")
	}
	for _, key := range unwritten {
		delete(r.raw, key)
	}
	return r, nil
}

// Unknown lists the keys that nobody has asked for and that are not in the table of irrelevant ones of a class, sorted:
// diffusers warns of them and goes on. Keys with a leading underscore are its own notes.
func (r *Reader) Unknown(class string) []string {
	var out []string
	for key := range r.raw {
		if !r.asked[key] && Irrelevant(class)[key] == "" && !strings.HasPrefix(key, "_") {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// Before reports whether the file has the key and its value is a version (PEP 440) whose numbers are below these.
func (r *Reader) Before(key string, release ...int) bool {
	raw, ok := r.get(key)
	if !ok {
		return false
	}
	var version string
	if r.IsNull(key) || json.Unmarshal(raw, &version) != nil {
		r.Refuse(key, "a version, such as \"0.9.0\"")
		return false
	}
	numbers := strings.Split(releasePattern.FindString(strings.TrimSpace(strings.TrimPrefix(version, "v"))), ".")
	if numbers[0] == "" {
		r.Refuse(key, "a version, such as \"0.9.0\"")
		return false
	}
	for i, limit := range release {
		n := 0
		if i < len(numbers) {
			n, _ = strconv.Atoi(numbers[i]) // of more digits than fit: the largest
		}
		if n != limit {
			return n < limit
		}
	}
	return false
}

// releasePattern is the release of a version.
var releasePattern = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*`)
