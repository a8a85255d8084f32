// Package config reads the config.json of one network of a diffusers directory: typed values with
// bounds, and an error for every value that would change the computation in a way this engine does
// not implement. Keys nobody asks for are ignored, as diffusers does, because training tools leave
// many behind.
//
// The package imports nothing of this project.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// MaxBytes bounds a config file; real ones have about 2 KB.
const MaxBytes = 1 << 20

// Error is one value of a config that cannot be accepted. Key is empty when the file as a whole is
// not a config.
type Error struct {
	File     string // set by whoever opened the file, see InFile
	Key      string
	Value    string // as written in the file, shortened
	Accepted string
}

// Error reads "unet/config.json: act_fn = "gelu" is not supported, accepted: "silu"".
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ": ")
	}
	if e.Key == "" {
		fmt.Fprintf(&b, "not a config: %s, expected %s", e.Value, e.Accepted)
	} else {
		fmt.Fprintf(&b, "%s = %s is not supported, accepted: %s", e.Key, e.Value, e.Accepted)
	}
	return b.String()
}

// Errors is every unacceptable value of one config, in the order they were read.
type Errors []*Error

// Error joins them with semicolons.
func (e Errors) Error() string {
	parts := make([]string, len(e))
	for i, p := range e {
		parts[i] = p.Error()
	}
	return strings.Join(parts, "; ")
}

// Unwrap gives every error to errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, p := range e {
		out[i] = p
	}
	return out
}

// InFile names the file in every Error inside err and returns err.
func InFile(err error, file string) error {
	var all Errors
	if errors.As(err, &all) {
		for _, e := range all {
			e.File = file
		}
	}
	return err
}

// Reader gives the values of one config. Its methods return a usable value in any case and collect
// what is wrong for Err; callers read everything and check once.
type Reader struct {
	raw    map[string]json.RawMessage
	asked  map[string]bool
	errors Errors
}

// Parse reads a JSON object of at most MaxBytes.
func Parse(data []byte) (*Reader, error) {
	if len(data) > MaxBytes {
		return nil, Errors{{Value: fmt.Sprintf("%d bytes", len(data)), Accepted: fmt.Sprintf("at most %d", MaxBytes)}}
	}
	r := &Reader{asked: map[string]bool{}}
	if err := json.Unmarshal(data, &r.raw); err != nil || r.raw == nil {
		reason := "null"
		if err != nil {
			reason = err.Error()
		}
		return nil, Errors{{Value: reason, Accepted: "a JSON object"}}
	}
	return r, nil
}

func (r *Reader) get(key string) (raw json.RawMessage, ok bool) {
	r.asked[key] = true
	raw, ok = r.raw[key]
	return raw, ok
}

// Err is every problem so far, as Errors, or nil.
func (r *Reader) Err() error {
	if len(r.errors) == 0 {
		return nil
	}
	return r.errors
}

// Refuse records that the value of key is not acceptable.
func (r *Reader) Refuse(key, accepted string) {
	value := "(absent)"
	if raw, ok := r.get(key); ok {
		value = string(bytes.Join(bytes.Fields(raw), nil))
		if len(value) > 80 {
			value = strings.ToValidUTF8(value[:80], "") + "..."
		}
	}
	r.errors = append(r.errors, &Error{Key: key, Value: value, Accepted: accepted})
}

// Nested reads the object that is the value of key. The error is Errors.
func (r *Reader) Nested(key string) (*Reader, error) {
	nested, err := Parse(r.Raw(key))
	if err != nil {
		r.Refuse(key, "a JSON object")
		return nil, r.Err()
	}
	return nested, nil
}

// Has reports whether the file has the key.
func (r *Reader) Has(key string) bool {
	_, ok := r.get(key)
	return ok
}

// Raw is the value of key as the file has it, nil if it has none.
func (r *Reader) Raw(key string) json.RawMessage {
	raw, _ := r.get(key)
	return raw
}

// Int is an integer between lo and hi, def when the key is absent.
func (r *Reader) Int(key string, def, lo, hi int) int {
	raw, ok := r.get(key)
	if !ok {
		return def
	}
	if v, ok := integer(raw); ok && v >= lo && v <= hi {
		return v
	}
	r.Refuse(key, fmt.Sprintf("an integer from %d to %d", lo, hi))
	return def
}

// OptionalInt is Int with null meaning def too.
func (r *Reader) OptionalInt(key string, def, lo, hi int) int {
	if r.IsNull(key) {
		return def
	}
	return r.Int(key, def, lo, hi)
}

// Float is a number between lo and hi, def when the key is absent.
func (r *Reader) Float(key string, def, lo, hi float64) float64 {
	raw, ok := r.get(key)
	if !ok {
		return def
	}
	if v, ok := number(raw); ok && v >= lo && v <= hi {
		return v
	}
	r.Refuse(key, fmt.Sprintf("a number from %g to %g", lo, hi))
	return def
}

// Bool is a truth value, def when the key is absent; null is false, as it is in Python.
func (r *Reader) Bool(key string, def bool) bool {
	raw, ok := r.get(key)
	if !ok {
		return def
	}
	switch string(raw) {
	case "true":
		return true
	case "false", "null":
		return false
	}
	r.Refuse(key, "true or false")
	return def
}

// String is one of the accepted strings, the first of them when the key is absent.
func (r *Reader) String(key string, accepted ...string) string {
	raw, ok := r.get(key)
	if !ok {
		return accepted[0]
	}
	var v string
	if !r.IsNull(key) && json.Unmarshal(raw, &v) == nil && slices.Contains(accepted, v) {
		return v
	}
	r.Refuse(key, quoted(accepted))
	return accepted[0]
}

// Strings is a list of 1 to limit of the accepted strings, def when the key is absent.
func (r *Reader) Strings(key string, def []string, limit int, accepted ...string) []string {
	raw, ok := r.get(key)
	if !ok {
		return def
	}
	var list []*string
	if json.Unmarshal(raw, &list) == nil && len(list) >= 1 && len(list) <= limit {
		out := make([]string, 0, len(list))
		for _, v := range list {
			if v != nil && slices.Contains(accepted, *v) {
				out = append(out, *v)
			}
		}
		if len(out) == len(list) {
			return out
		}
	}
	r.Refuse(key, fmt.Sprintf("a list of 1 to %d of %s", limit, quoted(accepted)))
	return def
}

// Ints is a list of 1 to limit integers between lo and hi, def when the key is absent.
func (r *Reader) Ints(key string, def []int, limit, lo, hi int) []int {
	raw, ok := r.get(key)
	if !ok {
		return def
	}
	if out, ok := integers(raw, lo, hi); ok && len(out) >= 1 && len(out) <= limit {
		return out
	}
	r.Refuse(key, fmt.Sprintf("a list of 1 to %d integers from %d to %d", limit, lo, hi))
	return def
}

// PerBlock is a list of n integers between lo and hi, written as such or as one number for all;
// n times def when the key is absent.
func (r *Reader) PerBlock(key string, def, n, lo, hi int) []int {
	raw, ok := r.get(key)
	if !ok {
		return slices.Repeat([]int{def}, n)
	}
	if v, ok := integer(raw); ok && v >= lo && v <= hi {
		return slices.Repeat([]int{v}, n)
	}
	if out, ok := integers(raw, lo, hi); ok && len(out) == n {
		return out
	}
	r.Refuse(key, fmt.Sprintf("an integer from %d to %d, or a list of %d of them", lo, hi, n))
	return slices.Repeat([]int{def}, n)
}

// Unset refuses a key that is set to anything but null or one of the neutral values, given as JSON.
func (r *Reader) Unset(key string, neutral ...string) {
	if raw, ok := r.get(key); !ok || r.IsNull(key) || slices.ContainsFunc(neutral, func(n string) bool { return same(raw, n) }) {
		return
	}
	r.Refuse(key, strings.Join(append([]string{"null"}, neutral...), " or "))
}

// IsNumber reports whether the file has the key and its value is a number.
func (r *Reader) IsNumber(key string) bool {
	_, ok := number(r.Raw(key))
	return ok
}

// IsNull reports whether the file has the key and its value is null.
func (r *Reader) IsNull(key string) bool {
	return string(r.Raw(key)) == "null"
}

func same(raw json.RawMessage, want string) bool {
	if string(raw) == want {
		return true
	}
	a, ok := number(raw)
	b, okB := number(json.RawMessage(want))
	return ok && okB && a == b
}

func number(raw json.RawMessage) (float64, bool) {
	v, err := strconv.ParseFloat(string(raw), 64)
	return v, err == nil && !math.IsInf(v, 0) && !math.IsNaN(v)
}

func integer(raw json.RawMessage) (int, bool) {
	v, ok := number(raw)
	if !ok || v != math.Trunc(v) || math.Abs(v) > 1<<53 {
		return 0, false
	}
	return int(v), true
}

func integers(raw json.RawMessage, lo, hi int) ([]int, bool) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil, false
	}
	out := make([]int, len(list))
	for i, e := range list {
		v, ok := integer(e)
		if !ok || v < lo || v > hi {
			return nil, false
		}
		out[i] = v
	}
	return out, true
}

func quoted(list []string) string {
	parts := make([]string, len(list))
	for i, s := range list {
		parts[i] = strconv.Quote(s)
	}
	return strings.Join(parts, " or ")
}
