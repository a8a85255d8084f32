package latent

import (
	"crypto/sha256"
	"fmt"
	"os"
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
	Tokenizer     string // the folder of Dir with its files
	Config        clip.Config
	Tokens        int // of a prompt
	Projection    int // width of the pooled state, 0 for none
	// Penultimate states are those behind all layers but one, without the final norm; else the last, with it. Layers that a
	// request skips come on top.
	Penultimate bool
	// Vectors is for how many text encoders textual inversions of the model have vectors, and Place which of these are this one's.
	Vectors, Place int
	Warnings       []string
	tokens         func() (*tokenizer.CLIP, error) // opens it once
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
			return t.Dir.TextEncoder(t.Folder, t.Config, t.Projection, o)
		},
		Settings: t.settings, Beside: family.Prompts(t.row()), Warnings: t.Warnings,
	}
}

func (t *Text) openTokenizer() (*tokenizer.CLIP, error) {
	out, err := tokenizer.Open(t.Dir.File(t.Tokenizer))
	if err == nil && out.VocabSize() > t.Config.VocabSize {
		err = &modeldir.Error{
			Path: t.Dir.File(t.Tokenizer), Expected: fmt.Sprintf("ids below vocab_size %d of the text encoder", t.Config.VocabSize),
			Got: fmt.Sprintf("ids up to %d", out.VocabSize()-1),
		}
	}
	return out, err
}

// settings are those of the text encoder: whatever its tokenizer may read is part of them.
func (t *Text) settings() (string, error) {
	out := fmt.Sprintf("%+v\n", t.Config)
	files, err := os.ReadDir(t.Dir.File(t.Tokenizer))
	if err != nil {
		return "", err
	}
	for _, f := range files {
		path := t.Dir.File(t.Tokenizer, f.Name())
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

// Prompt is a text, the option that says it, and how many layers of the encoder it skips.
type Prompt struct {
	Option, Text string
	Skip         int
}

// PromptOf is the first of some options that says anything, else the last of them.
func PromptOf(o stage.Options, options ...string) Prompt {
	return promptOf(o, OptionClipSkip, options)
}

// NegativeOf is PromptOf of the negative prompt.
func NegativeOf(o stage.Options, options ...string) Prompt {
	return promptOf(o, OptionNegativeClipSkip, options)
}

func promptOf(o stage.Options, skip string, options []string) Prompt {
	for o[options[0]].Text == "" && len(options) > 1 {
		options = options[1:]
	}
	return Prompt{Option: options[0], Text: o[options[0]].Text, Skip: int(o[skip].Int)}
}

// Skips is how many layers a prompt may skip at most.
func (t *Text) Skips() int { return t.Config.Layers - 1 - t.penultimate() }

func (t *Text) penultimate() int {
	if t.Penultimate {
		return 1
	}
	return 0
}

// depth is that of the states of a prompt that skips layers.
func (t *Text) depth(skip int) modeldir.Depth {
	return modeldir.Depth{Skipped: skip + t.penultimate(), Normed: !t.Penultimate}
}
