package latent

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/triptych-serving/triptych/engine/model/clip"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/tokenizer"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Text is a text encoder of a model, and the tokenizer that prompts are read by.
type Text struct {
	Dir           *modeldir.Dir
	Folder, Class string
	Tokenizer     string // the folder with its files
	Config        clip.Config
	Tokens        int // of a prompt
	Warnings      []string
	tokens        func() (*tokenizer.CLIP, error) // opens it once
}

// NewText is a text encoder whose tokenizer is opened when it is needed first.
func NewText(t Text) *Text {
	t.tokens = sync.OnceValues(t.openTokenizer)
	return &t
}

// Component is the network with room for the states of prompts.
func (t *Text) Component() family.Component {
	return family.Component{
		Name: family.Name(t.Dir, t.Folder), Kind: stage.KindEncoder, Folder: t.Folder, Class: t.Class,
		Open: func(o modeldir.Options) (family.Network, error) {
			if !o.Outline {
				if _, err := t.tokens(); err != nil {
					return nil, err
				}
			}
			return t.Dir.TextEncoder(t.Folder, t.Config, 0, o)
		},
		Settings: t.settings, Beside: family.Prompts(t.Tokens, t.Config.HiddenSize), Warnings: t.Warnings,
	}
}

func (t *Text) openTokenizer() (*tokenizer.CLIP, error) {
	out, err := tokenizer.Open(t.Tokenizer)
	if err == nil && out.VocabSize() > t.Config.VocabSize {
		err = &modeldir.Error{
			Path: t.Tokenizer, Expected: fmt.Sprintf("ids below vocab_size %d of the text encoder", t.Config.VocabSize),
			Got: fmt.Sprintf("ids up to %d", out.VocabSize()-1),
		}
	}
	return out, err
}

// settings are those of the text encoder: whatever its tokenizer may read is part of them.
func (t *Text) settings() (string, error) {
	out := fmt.Sprintf("%+v\n", t.Config)
	files, err := os.ReadDir(t.Tokenizer)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		path := filepath.Join(t.Tokenizer, f.Name())
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() { // a link's file
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		out += fmt.Sprintf("%q %x\n", f.Name(), sha256.Sum256(data))
	}
	return out, nil
}

// IDs are the token ids of the options of some names, Tokens each. Warnings tell what was cut off.
func (t *Text) IDs(o stage.Options, names []string) (ids [][]int32, warnings []stage.Warning, err error) {
	tokens, err := t.tokens()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		row, dropped, err := tokens.Encode(o[name].Text, t.Tokens)
		if err != nil {
			return nil, nil, err
		}
		if dropped > 0 {
			warnings = append(warnings, family.Truncated(name, dropped, t.Tokens))
		}
		ids = append(ids, row)
	}
	return ids, warnings, nil
}
