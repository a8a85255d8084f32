package tokenizer

import (
	"math"
	"os"
	"strconv"
)

// MaxLength is the most tokens of a text, start and end among them, that the tokenizer folder of a model tells:
// model_max_length of tokenizer_config.json, or max_len where that is not there. 0 is no bound: none is told, or null, or the
// 1e30 that the reference writes for it. The error is an Error.
func MaxLength(dir string) (int, error) {
	entries, err := folder{os.DirFS(dir), dir}.readEntries(configFile)
	if err != nil {
		return 0, err
	}
	e, ok := entries["model_max_length"]
	if !ok {
		e = entries["max_len"]
	}
	if absent(e.data) {
		return 0, nil
	}
	n, err := strconv.ParseFloat(string(e.data), 64)
	switch {
	case err != nil || n != math.Trunc(n) || n < frame:
		return 0, e.at.fail("an integer of at least "+strconv.Itoa(frame)+", for start and end", shorten(string(e.data)))
	case n > math.MaxInt32:
		return 0, nil
	}
	return int(n), nil
}
