package api

import (
	"strings"

	"github.com/triptych-serving/triptych/stage"
)

// lift moves models that texts name in tags, such as <lora:style:0.8>, into the options that a recipe has for them, behind those
// that they name already.
func lift(r stage.Recipe, given stage.Options) error {
	for _, o := range r.Options {
		if o.Tag == "" {
			continue
		}
		var lifted []string
		for _, in := range o.InTexts {
			text, tags, err := cutTags(fieldOf(in), given[in].Text, o.Tag)
			if err != nil {
				return err
			}
			if len(tags) > 0 {
				given[in], lifted = stage.TextOption(strings.TrimSpace(text)), append(lifted, tags...)
			}
		}
		if named := given[o.Name]; len(lifted) > 0 && (named == stage.Option{} || named.Type == stage.Text) {
			if strings.TrimSpace(named.Text) != "" {
				lifted = append([]string{named.Text}, lifted...)
			}
			given[o.Name] = stage.TextOption(strings.Join(lifted, ","))
		}
	}
	return leftTags(r, given)
}

// leftTags refuses the tag of a LoRA, which everybody writes alike, in a text where it means nothing: drawn as words, it would be another
// picture than the caller means.
func leftTags(r stage.Recipe, given stage.Options) error {
	const tag = "<lora:"
	accepted := "no LoRA, for which the model has no option"
	for _, o := range r.Options {
		if "<"+o.Tag+":" == tag {
			accepted = "no LoRA there, but in " + strings.Join(o.InTexts, " or ")
		}
	}
	for _, o := range r.Options {
		if text := given[o.Name].Text; o.Type == stage.Text && strings.Contains(text, tag) {
			_, behind, _ := strings.Cut(text, tag)
			inside, _, _ := strings.Cut(behind, ">")
			return stage.Invalid(stage.InvalidField, fieldOf(o.Name), tag+stage.Excerpt(inside, 60)+">", accepted)
		}
	}
	return nil
}

// cutTags takes the tags of a name out of a text, and gives what each names as stage.ParseChoices reads it. The error is about the
// field.
func cutTags(field, text, tag string) (rest string, named []string, err error) {
	var out strings.Builder
	for {
		before, behind, found := strings.Cut(text, "<"+tag+":")
		out.WriteString(before)
		if !found {
			return out.String(), named, nil
		}
		inside, after, closed := strings.Cut(behind, ">")
		choices, err := stage.ParseChoices(inside)
		if !closed || err != nil || len(choices) != 1 {
			whole := "<" + tag + ":" + stage.Excerpt(inside, 60)
			return "", nil, stage.Invalid(stage.InvalidField, field, whole, "<"+tag+":NAME:NUMBER>")
		}
		named, text = append(named, inside), after
	}
}
