package torchfile

import (
	"fmt"
	"strconv"
	"strings"
)

// The values of a pickle are nil, bool, int64, float64, string and the types below.
type (
	// list is a list.
	list struct{ items []any }
	// tuple is a tuple.
	tuple struct{ items []any }
	// global is the name of a class or function.
	global struct{ module, name string }
	// opaque is an object of any class that is not built, a set among them.
	opaque struct {
		class       global
		args, state any
		items       []any
	}
	// long is an integer of more than 64 bits: its bytes.
	long string
	// unread stands for bytes, and for a text that is too long to be a name.
	unread struct{}
)

// dict is a dict, in the order in which keys were set first.
type dict struct {
	keys   []any
	values []any
	index  map[any]int
}

func newDict() *dict { return &dict{index: map[any]int{}} }

// set sets the value of a key, which is one that hashable gave.
func (d *dict) set(key, value any) {
	if at, there := d.index[key]; there {
		d.values[at] = value
		return
	}
	d.index[key] = len(d.keys)
	d.keys, d.values = append(d.keys, key), append(d.values, value)
}

func (d *dict) get(key string) any {
	if at, there := d.index[key]; there {
		return d.values[at]
	}
	return nil
}

type (
	tupleKey  string // a tuple as Python writes it
	objectKey int    // any other object, by when it was set
)

// hashable is what a dict knows a key by.
func (d *dict) hashable(key any) any {
	switch key := key.(type) {
	case nil, bool, int64, float64, string:
		return key
	case *tuple:
		if text, ok := key.spelled(); ok {
			return tupleKey(text)
		}
	}
	return objectKey(len(d.keys))
}

// spelled is a short tuple of short texts and integers as Python writes it.
func (t *tuple) spelled() (string, bool) {
	const most, longest = 8, 256
	if len(t.items) > most {
		return "", false
	}
	parts := make([]string, len(t.items))
	for i, item := range t.items {
		switch item := item.(type) {
		case string:
			if len(item) > longest {
				return "", false
			}
			parts[i] = "'" + item + "'"
		case int64:
			parts[i] = strconv.FormatInt(item, 10)
		default:
			return "", false
		}
	}
	if len(parts) == 1 {
		return "(" + parts[0] + ",)", true
	}
	return "(" + strings.Join(parts, ", ") + ")", true
}

// spell is a key as a part of a tensor's name.
func spell(key any) string {
	switch key := key.(type) {
	case nil:
		return "None"
	case bool:
		if key {
			return "True"
		}
		return "False"
	case objectKey:
		return fmt.Sprintf("<object %d>", int(key))
	}
	return fmt.Sprint(key)
}

// parts are what a value holds.
func parts(v any) []any {
	switch v := v.(type) {
	case *list:
		return v.items
	case *tuple:
		return v.items
	case *dict:
		return v.values
	case *opaque:
		return append([]any{v.args, v.state}, v.items...)
	}
	return nil
}
