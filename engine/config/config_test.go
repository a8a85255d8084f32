package config

import (
	"errors"
	"strings"
	"testing"
)

func parse(t *testing.T, data string) *Reader {
	t.Helper()
	r, err := Parse([]byte(data))
	if err != nil {
		t.Fatalf("Parse(%s): %v", data, err)
	}
	return r
}

func TestParseRefusesWhatIsNotAnObject(t *testing.T) {
	for _, data := range []string{"", "null", "[]", "3", `{"a":`, `{"a":NaN}`, "{}{}", `{"a":"` + strings.Repeat("x", MaxBytes) + `"}`} {
		_, err := Parse([]byte(data))
		var e *Error
		if !errors.As(err, &e) || e.Key != "" || e.Accepted == "" {
			t.Errorf("Parse of %.20q: error %v, want an Error about the whole file", data, err)
		}
	}
}

func TestValues(t *testing.T) {
	r := parse(t, `{"i": 4, "whole": 4.0, "f": 1e-5, "yes": true, "null": null, "s": "silu", "list": [1, 2, 3], "names": ["a", "b"], "seven": 7}`)
	check := func(name string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	check("Int", r.Int("i", 9, 1, 10), 4)
	check("Int of 4.0", r.Int("whole", 9, 1, 10), 4)
	check("Int absent", r.Int("none", 9, 1, 10), 9)
	check("OptionalInt null", r.OptionalInt("null", 9, 1, 10), 9)
	check("Float", r.Float("f", 1, 0, 1), 1e-5)
	check("Bool", r.Bool("yes", false), true)
	check("Bool null", r.Bool("null", true), false)
	check("Bool absent", r.Bool("none", true), true)
	check("String", r.String("s", "gelu", "silu"), "silu")
	check("String absent", r.String("none", "gelu", "silu"), "gelu")
	check("PerBlock list", r.PerBlock("list", 9, 3, 1, 3)[2], 3)
	check("PerBlock number", r.PerBlock("seven", 9, 3, 1, 7)[2], 7)
	check("PerBlock absent", r.PerBlock("none", 9, 3, 1, 10)[2], 9)
	check("Ints", len(r.Ints("list", nil, 3, 1, 3)), 3)
	check("Strings", strings.Join(r.Strings("names", nil, 2, "a", "b"), " "), "a b")
	r.Unset("none")
	r.Unset("null")
	r.Unset("yes", "true")
	r.Unset("seven", "7.0")
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		data string
		read func(*Reader)
	}{
		{`{"k": 11}`, func(r *Reader) { r.Int("k", 1, 1, 10) }},
		{`{"k": 1.5}`, func(r *Reader) { r.Int("k", 1, 1, 10) }},
		{`{"k": 1e400}`, func(r *Reader) { r.Int("k", 1, 1, 10) }},
		{`{"k": "4"}`, func(r *Reader) { r.Int("k", 1, 1, 10) }},
		{`{"k": null}`, func(r *Reader) { r.Int("k", 1, 1, 10) }},
		{`{"k": true}`, func(r *Reader) { r.OptionalInt("k", 1, 1, 10) }},
		{`{"k": -1}`, func(r *Reader) { r.Float("k", 1, 0, 10) }},
		{`{"k": 1e400}`, func(r *Reader) { r.Float("k", 1, 0, 10) }},
		{`{"k": 1}`, func(r *Reader) { r.Bool("k", true) }},
		{`{"k": "relu"}`, func(r *Reader) { r.String("k", "silu") }},
		{`{"k": null}`, func(r *Reader) { r.String("k", "silu") }},
		{`{"k": ["a", null]}`, func(r *Reader) { r.Strings("k", nil, 3, "a") }},
		{`{"k": ["a", "c"]}`, func(r *Reader) { r.Strings("k", nil, 3, "a") }},
		{`{"k": []}`, func(r *Reader) { r.Strings("k", nil, 3, "a") }},
		{`{"k": [1, 1, 1]}`, func(r *Reader) { r.Ints("k", nil, 2, 1, 1) }},
		{`{"k": 1}`, func(r *Reader) { r.Ints("k", nil, 2, 1, 1) }},
		{`{"k": [1, [1]]}`, func(r *Reader) { r.PerBlock("k", 1, 2, 1, 1) }},
		{`{"k": [1]}`, func(r *Reader) { r.PerBlock("k", 1, 2, 1, 1) }},
		{`{"k": null}`, func(r *Reader) { r.PerBlock("k", 1, 2, 1, 1) }},
		{`{"k": "text"}`, func(r *Reader) { r.Unset("k", "false") }},
		{`{"k": true}`, func(r *Reader) { r.Unset("k", "false") }},
		{`{"k": [` + strings.Repeat("1, ", 1000) + `1]}`, func(r *Reader) { r.Ints("k", nil, 2, 1, 1) }},
	} {
		r := parse(t, c.data)
		c.read(r)
		err := InFile(r.Err(), "unet/config.json")
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.40s: no error", c.data)
			continue
		}
		if e.File != "unet/config.json" || e.Key != "k" || e.Value == "" || e.Accepted == "" || len(e.Error()) > 250 {
			t.Errorf("%.40s: %v, want one that names file, key, value and accepted, in short", c.data, err)
		}
	}
}
