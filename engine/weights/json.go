package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// scanner reads JSON value by value. Unlike json.Unmarshal it refuses keys that are there twice
// and text that is not UTF-8, and it never builds more than the caller asks for.
type scanner struct{ dec *json.Decoder }

// scanObject reads data as one JSON object and nothing after it but white space.
func scanObject(data []byte, member func(s scanner, key string) error) error {
	switch {
	case len(data) == 0:
		return errors.New("nothing")
	case data[0] != '{':
		return fmt.Errorf("text that begins with %q", data[:1])
	case !utf8.Valid(data):
		return errors.New("text that is not UTF-8")
	}
	s := scanner{json.NewDecoder(bytes.NewReader(data))}
	s.dec.UseNumber()
	if err := s.object(member); err != nil {
		return err
	}
	if _, err := s.dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more text after the object")
	}
	return nil
}

// object calls member for every key, which must read the key's value.
func (s scanner) object(member func(s scanner, key string) error) error {
	if err := s.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for s.dec.More() {
		key, err := s.string()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("key %q twice", shorten(key))
		}
		seen[key] = true
		if err := member(s, key); err != nil {
			return err
		}
	}
	return s.delim('}')
}

// numbers reads an array of at most limit numbers.
func (s scanner) numbers(limit int) ([]json.Number, error) {
	if err := s.delim('['); err != nil {
		return nil, err
	}
	var out []json.Number
	for s.dec.More() {
		t, err := s.token()
		if err != nil {
			return nil, err
		}
		n, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("%s where a number belongs", show(t))
		}
		if len(out) == limit {
			return nil, fmt.Errorf("more than %d numbers in a list", limit)
		}
		out = append(out, n)
	}
	return out, s.delim(']')
}

func (s scanner) string() (string, error) {
	t, err := s.token()
	if err != nil {
		return "", err
	}
	text, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("%s where a string belongs", show(t))
	}
	return text, nil
}

// skip reads a value of any kind.
func (s scanner) skip() error {
	var ignored json.RawMessage
	if err := s.dec.Decode(&ignored); err != nil {
		return cutShort(err)
	}
	return nil
}

func (s scanner) delim(want json.Delim) error {
	t, err := s.token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("%s where %v belongs", show(t), want)
	}
	return nil
}

func (s scanner) token() (json.Token, error) {
	t, err := s.dec.Token()
	if err != nil {
		return nil, cutShort(err)
	}
	return t, nil
}

// show names a token in an error.
func show(t json.Token) string {
	switch t := t.(type) {
	case nil:
		return "null"
	case string:
		return fmt.Sprintf("%q", shorten(t))
	}
	return shorten(fmt.Sprint(t))
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("text that ends too early")
	}
	return err
}
