// Package infotext writes and reads how a picture was made, in the form that AUTOMATIC1111's web UI gave it and most programs read: a
// prompt, "Negative prompt: " and another one, and a last line of settings, "Steps: 20, Sampler: Euler a, CFG scale: 7". What
// ComfyUI keeps in files instead is read too.
//
// The package imports nothing of this module.
package infotext

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Field is a setting.
type Field struct{ Key, Value string }

// Parameters are how a picture was made.
type Parameters struct {
	Prompt, Negative string
	Fields           []Field // in the order of the text; one that has no key is what could not be read
}

// The bounds of a text, which is somebody else's: more than any program writes, and no more than readers of PNG such as PIL accept.
const (
	maxBytes  = 1 << 20
	maxFields = 1000
	maxJSON   = 64 << 10 // of a value
)

// Fields that repeat a text which the lines above them would give otherwise, such as a prompt with "Negative prompt:" in it.
const (
	exactPrompt   = "prompt"
	exactNegative = "negative_prompt"
)

const negativePrefix = "Negative prompt:"

// Error is a text that does not tell how a picture was made.
type Error struct{ Expected, Got string }

// Error reads "infotext: expected ..., got ...".
func (e *Error) Error() string {
	return fmt.Sprintf("infotext: expected %s, got %s", e.Expected, e.Got)
}

// String writes the parameters as Parse reads them.
func (p Parameters) String() string {
	text := p.Prompt
	if p.Negative != "" {
		text += "\n" + negativePrefix + " " + p.Negative
	}
	fields := slices.Clone(p.Fields)
	if prompt, negative := split(text); prompt != p.Prompt || negative != p.Negative {
		fields = append(fields, Field{exactPrompt, p.Prompt}, Field{exactNegative, p.Negative})
	}
	var parts []string
	for _, f := range fields {
		parts = append(parts, f.Key+": "+Quote(f.Value))
	}
	return text + "\n" + strings.Join(parts, ", ")
}

// Get is the value of a setting, the last one of a key that is there twice.
func (p Parameters) Get(key string) (value string, ok bool) {
	for _, f := range p.Fields {
		if f.Key == key {
			value, ok = f.Value, true
		}
	}
	return value, ok
}

// Quote writes a value so that it is read as one: as a JSON string where it has what separates settings.
func Quote(value string) string {
	if !strings.ContainsAny(value, ",:\n") && !strings.HasPrefix(value, `"`) && value == strings.TrimSpace(value) {
		return value
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(err) // a string has an encoding
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// Parse reads a text. Lines behind that of the settings, as some extensions write them, are settings too. Errors are an Error.
func Parse(text string) (p Parameters, err error) {
	if len(text) > maxBytes || !utf8.ValidString(text) {
		return p, &Error{"at most 1 MiB of UTF-8", fmt.Sprintf("%d bytes: %.40q", len(text), text)}
	}
	lines := strings.Split(strings.TrimRight(text, " \t\r\n"), "\n")
	at := len(lines) - 1
	for at >= 0 && !isSettings(lines[at]) {
		at--
	}
	if at < 0 {
		return p, &Error{`a line of settings, such as "Steps: 20, Sampler: Euler, Seed: 1"`, fmt.Sprintf("%.200q", text)}
	}
	p.Prompt, p.Negative = split(strings.Join(lines[:at], "\n"))
	for _, line := range lines[at:] {
		p.Fields = append(p.Fields, fieldsOf(line, maxFields+1-len(p.Fields))...)
	}
	if len(p.Fields) > maxFields {
		return p, &Error{fmt.Sprintf("at most %d settings", maxFields), "more"}
	}
	if prompt, ok := p.Get(exactPrompt); ok {
		p.Prompt = prompt
	}
	if negative, ok := p.Get(exactNegative); ok {
		p.Negative = negative
	}
	p.Fields = slices.DeleteFunc(p.Fields, func(f Field) bool { return f.Key == exactPrompt || f.Key == exactNegative })
	return p, nil
}

// isSettings tells a line of settings from one of a prompt.
func isSettings(line string) bool {
	known := 0
	for _, f := range fieldsOf(line, 3) {
		if f.Key == "Seed" {
			return true // of models that take no steps
		}
		if f.Key != "" {
			known++
		}
	}
	return known == 3
}

// split cuts what is above the settings at the first line that begins the negative prompt.
func split(text string) (prompt, negative string) {
	for at := 0; at <= len(text); {
		line, _, more := strings.Cut(text[at:], "\n")
		if rest, ok := strings.CutPrefix(strings.TrimLeft(line, " \t"), negativePrefix); ok {
			negative = rest
			if more {
				negative += text[at+len(line):]
			}
			return strings.TrimSuffix(text[:at], "\n"), strings.TrimPrefix(negative, " ")
		}
		at += len(line) + 1
	}
	return text, ""
}

// fieldsOf are the settings of a line, no more than so many.
func fieldsOf(line string, most int) (fields []Field) {
	for rest := strings.TrimSpace(line); rest != "" && len(fields) < most; {
		end := strings.IndexAny(rest, ":,")
		if end < 0 || rest[end] == ',' {
			var odd string
			odd, rest, _ = strings.Cut(rest, ",")
			if odd = strings.TrimSpace(odd); odd != "" {
				fields = append(fields, Field{Value: odd})
			}
			rest = strings.TrimSpace(rest)
			continue
		}
		f := Field{Key: strings.TrimSpace(rest[:end])}
		f.Value, rest = value(strings.TrimSpace(rest[end+1:]))
		fields, rest = append(fields, f), strings.TrimSpace(rest)
	}
	return fields
}

// value reads one that ends at a comma outside of JSON, and gives what is behind that.
func value(text string) (v, rest string) {
	if text != "" && strings.ContainsRune(`"[{`, rune(text[0])) {
		d := json.NewDecoder(strings.NewReader(text[:min(len(text), maxJSON)]))
		var raw json.RawMessage
		if d.Decode(&raw) == nil {
			v, rest = text[:d.InputOffset()], strings.TrimSpace(text[d.InputOffset():])
			if rest == "" || rest[0] == ',' {
				return unquote(v), strings.TrimPrefix(rest, ",")
			}
		}
	}
	v, rest, _ = strings.Cut(text, ",")
	return strings.TrimSpace(v), rest
}

// unquote is the text of a JSON string; other JSON is left as it is.
func unquote(v string) string {
	var s string
	if v[0] != '"' || json.Unmarshal([]byte(v), &s) != nil {
		return v
	}
	return s
}
