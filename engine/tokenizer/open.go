package tokenizer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// What the files of a folder may hold: beyond it they are refused before anything is built. CLIP has
// 49,408 tokens in 1 MB.
const (
	maxFileBytes   = 64 << 20 // vocab.json, merges.txt, tokenizer.json
	maxConfigBytes = 1 << 20  // the other files, and each such part of tokenizer.json
	maxEntries     = 1 << 20  // tokens, ids, merges
	maxAdded       = 1 << 12  // added tokens
)

// The files of a tokenizer folder.
const (
	vocabFile     = "vocab.json"
	mergesFile    = "merges.txt"
	tokenizerFile = "tokenizer.json"
	configFile    = "tokenizer_config.json"
	specialFile   = "special_tokens_map.json"
	addedFile     = "added_tokens.json"
)

// Open reads the tokenizer folder of a model: tokenizer.json or, where there is none, vocab.json and
// merges.txt; and tokenizer_config.json, special_tokens_map.json and added_tokens.json if they are
// there. The error is an Error.
func Open(dir string) (*CLIP, error) { return openFolder(folder{os.DirFS(dir), dir}) }

// OpenFS is Open for files that are not on disk.
func OpenFS(fsys fs.FS) (*CLIP, error) { return openFolder(folder{fsys, ""}) }

func openFolder(f folder) (*CLIP, error) {
	data, err := f.read(tokenizerFile, maxFileBytes)
	if err != nil {
		return nil, err
	}
	var v *vocabulary
	var whole *tokenizerJSON
	if data != nil {
		if whole, err = parseTokenizerJSON(f.path(tokenizerFile), data); err != nil {
			return nil, err
		}
		v = &whole.vocabulary
	} else if v, err = f.readVocabulary(); err != nil {
		return nil, err
	}
	s, err := f.readSettings(whole)
	if err != nil {
		return nil, err
	}
	ids, err := s.resolve(v, place{f.path(configFile), ""})
	if err != nil {
		return nil, err
	}
	if whole != nil {
		if err := whole.checkFrame(ids.start, ids.end); err != nil {
			return nil, err
		}
	}
	return assemble(v, ids)
}

func assemble(v *vocabulary, ids *special) (*CLIP, error) {
	pairs, err := v.bytePairs(ids.unknown)
	if err != nil {
		return nil, err
	}
	c := &CLIP{bytePairs: pairs, start: ids.start, end: ids.end, pad: ids.pad}
	for _, id := range v.ids {
		c.vocabSize = max(c.vocabSize, int(id)+1)
	}
	for _, t := range ids.added {
		c.vocabSize = max(c.vocabSize, int(t.id)+1)
	}
	c.raw, c.normal = matchersOf(ids.added)
	c.inversions = inversionsOf(ids.added)
	return c, nil
}

// folder is where the files are; name is what errors put before their names.
type folder struct {
	fsys fs.FS
	name string
}

func (f folder) path(file string) string { return filepath.Join(f.name, file) }

// read returns the content of a file, nil if there is none.
func (f folder) read(file string, limit int64) ([]byte, error) {
	fail := func(got string, err error) ([]byte, error) {
		return nil, &Error{File: f.path(file), Expected: fmt.Sprintf("a file of at most %d bytes", limit), Got: got, Err: err}
	}
	info, err := fs.Stat(f.fsys, file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return fail(reason(err), err)
	case !info.Mode().IsRegular():
		return fail("no regular file", nil)
	case info.Size() > limit:
		return fail(fmt.Sprintf("%d bytes", info.Size()), nil)
	}
	r, err := f.fsys.Open(file)
	if err != nil {
		return fail(reason(err), err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return fail(reason(err), err)
	case int64(len(data)) > limit:
		return fail("more", nil)
	}
	return data, nil
}

// require is read for a file that must be there.
func (f folder) require(file string) ([]byte, error) {
	data, err := f.read(file, maxFileBytes)
	if err == nil && data == nil {
		return nil, &Error{File: f.path(file), Expected: "a file", Got: "nothing", Err: fs.ErrNotExist}
	}
	return data, err
}

func (f folder) readVocabulary() (*vocabulary, error) {
	vocab, err := f.require(vocabFile)
	if err != nil {
		return nil, err
	}
	merges, err := f.require(mergesFile)
	if err != nil {
		return nil, err
	}
	v := &vocabulary{}
	if v.ids, err = parseVocab(place{f.path(vocabFile), ""}, vocab); err != nil {
		return nil, err
	}
	v.mergesAt = place{f.path(mergesFile), ""}
	v.merges, err = parseMergesText(v.mergesAt, merges)
	return v, err
}

// reason is the cause without the path, which the Error already has.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
