package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/internal/infotext"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// fromPicture is what --from-png takes of a picture. Flags and options that are given come before it.
type fromPicture struct {
	file     string
	model    string // empty is not told
	task     string
	options  []toldOption
	warnings []string
}

// toldOption is an option of the model as a setting of the picture tells it.
type toldOption struct {
	name, value string
	of          infotext.Field
	must        bool // it is refused where the model has no such option; else a warning tells it
}

// readFromPNG is what a picture tells of itself, and notes on what could not be read of it.
func readFromPNG(stdin io.Reader, file string) (p infotext.Parameters, notes []string, err error) {
	data, err := readPicture(stdin, file)
	if err != nil {
		return p, nil, err
	}
	if len(data) > imaging.MaxBytes {
		return p, nil, usageError{fmt.Errorf("--from-png %s: expected at most %d bytes", file, imaging.MaxBytes)}
	}
	texts, err := imaging.ReadText(data)
	if err != nil {
		return p, nil, usageError{fmt.Errorf("--from-png %s: %w", file, err)}
	}
	var keys []string
	kept := map[string]string{}
	for _, t := range texts {
		kept[t.Key], keys = t.Value, append(keys, fmt.Sprintf("%q", stage.Excerpt(t.Key, 40)))
	}
	parameters, ok := kept["parameters"]
	graph, isGraph := kept["prompt"]
	switch {
	case ok:
		p, err = infotext.Parse(parameters)
	case isGraph:
		p, notes, err = infotext.ParseComfyUI(graph)
	case len(keys) > 0:
		err = fmt.Errorf(`expected a text "parameters", or "prompt" of ComfyUI, got %s`, strings.Join(keys, ", "))
	default:
		err = fmt.Errorf("it does not tell how it was made")
	}
	if err != nil {
		return p, nil, usageError{fmt.Errorf("--from-png %s: %w", file, err)}
	}
	return p, notes, nil
}

// repeat fills in what a picture tells and no flag says, and gives its prompt.
func (f *generateFlags) repeat(cmd *cobra.Command) (prompt string, err error) {
	told, notes, err := readFromPNG(cmd.InOrStdin(), f.picture.file)
	if err != nil {
		return "", err
	}
	f.picture.warnings = notes
	r := repetition{flags: cmd.Flags(), told: told, picture: &f.picture}
	if err := r.take(); err != nil {
		return "", usageError{fmt.Errorf("--from-png %s: %w", f.picture.file, err)}
	}
	for _, w := range f.picture.warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	return told.Prompt, nil
}

// apply writes the picture's options into a request, of which a model's task has some. What it has not is told to w.
func (p *fromPicture) apply(spec *triptychv1alpha1.GenerationSpec, options map[string]*triptychv1alpha1.Option, w io.Writer) (err error) {
	for _, o := range p.options {
		if spec.GetOptions()[o.name] != nil {
			continue
		}
		has := options[o.name]
		if _, two := options["prompt_2"]; two && slices.Contains(clipSkips(), o.name) && o.of.Key == "Clip skip" {
			fmt.Fprintf(w, "warning: %s: a model with two text encoders takes the layer before the last one whatever this says\n", setting(o.of))
			continue
		}
		switch {
		case has == nil && o.must:
			return fmt.Errorf("--from-png %s: %w", p.file, stage.Invalid(stage.InvalidField, o.of.Key, stage.Excerpt(o.of.Value, 200), fmt.Sprintf("an option of the model %q, or another --model", spec.GetModel())))
		case has == nil:
			fmt.Fprintf(w, "warning: %s: the model has no option %s\n", setting(o.of), o.name)
			continue
		}
		if spec.Options == nil {
			spec.Options = map[string]*triptychv1alpha1.OptionValue{}
		}
		if spec.Options[o.name], err = optionValue(has.GetType(), o.value); err != nil {
			return fmt.Errorf("--from-png %s: %w", p.file, notOfType(o.of.Key, o.of.Value, has))
		}
	}
	return nil
}

// setting is a setting of a picture as it is told to people.
func setting(f infotext.Field) string {
	text := f.Value
	if f.Key != "" {
		text = f.Key + ": " + f.Value
	}
	return fmt.Sprintf("%q", stage.Excerpt(text, 120))
}
