package modelfolder

import (
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxName = 128
	maxPath = 512
)

// The rules that ValidName and ValidPath check, in words.
const (
	NameRule = "1 to 128 printable characters without a slash or comma, and no dot at the start"
	PathRule = "a path below the model's folder of at most 512 printable characters, without '..' or names that begin with .triptych"
)

// ValidName tells whether a model can have a name: that of a folder in a list of them, by NameRule.
func ValidName(name string) bool {
	return len(name) > 0 && len(name) <= maxName && printable(name) && !strings.ContainsAny(name, `/\,`) && name[0] != '.'
}

// ValidPath tells whether a file of a model can have a path, with slashes, by PathRule.
func ValidPath(path string) bool {
	return len(path) > 0 && len(path) <= maxPath && printable(path) && !strings.Contains(path, `\`) && path != "." &&
		filepath.IsLocal(path) && filepath.ToSlash(filepath.Clean(path)) == path && !IsState(path)
}

// IsState tells whether a path below a model, or its folder, is of what this package keeps there, and none of its files.
func IsState(path string) bool { return strings.Contains("/"+path, "/"+stateName) }

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}
