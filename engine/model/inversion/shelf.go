package inversion

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// maxFiles bounds how many files are looked at; a folder given by mistake may have a million.
const maxFiles = 2000

// Shelf remembers files that were read, as long as they are there and do not change. The zero Shelf is empty. Safe for concurrent use.
type Shelf struct {
	mu    sync.Mutex
	known map[string]entry
}

// entry is a file as it was at one time.
type entry struct {
	stamp string
	read  *Inversion
}

// Look gives the files of some paths, those beyond a bound left out.
func (s *Shelf) Look(paths []string) (out []*Inversion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := map[string]entry{}
	for _, path := range paths[:min(len(paths), maxFiles)] {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		e := s.known[path]
		if stamp := fmt.Sprint(info.Size(), info.ModTime().UnixNano()); e.read == nil || e.stamp != stamp {
			e = entry{stamp, Read(path)}
		}
		now[path] = e
		out = append(out, e.read)
	}
	s.known = now
	return out
}

// Named is the file of a word.
type Named struct {
	*Inversion
	Refused error // why it cannot be used: an Error
}

// Words are files by the words that name them, in small letters. fits tells why a file is not for a model; the word is that of a file that fits, if there
// is any. Several that fit are refused unless their vectors are equal.
func Words(files []*Inversion, fits func(*Inversion) error) map[string]Named {
	out := map[string]Named{}
	for _, in := range files {
		refused := in.Err
		if refused == nil {
			refused = fits(in)
		}
		for _, word := range in.Words {
			word = strings.ToLower(word) // as CLIP reads texts
			had, known := out[word]
			switch {
			case !known || had.Refused != nil && refused == nil:
				out[word] = Named{in, refused}
			case had.Refused == nil && refused == nil && !slices.Equal(had.values(), in.values()):
				out[word] = Named{had.Inversion, &Error{
					File: had.File, Expected: fmt.Sprintf("one file of the word %.80q", word), Got: "another one, " + in.File + ", with other vectors",
				}}
			}
		}
	}
	return out
}

// values are those of all encoders, whatever their tensors are called.
func (in *Inversion) values() (out []float32) {
	for _, v := range in.Encoders {
		out = append(out, v.Values...)
	}
	return out
}
