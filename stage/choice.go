package stage

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Choice is a model that an option names, and numbers for it, such as the weight of a LoRA.
type Choice struct {
	Name    string
	Numbers []float64
}

// String writes a choice as ParseChoices reads it.
func (c Choice) String() string {
	text := c.Name
	for _, n := range c.Numbers {
		text += ":" + strconv.FormatFloat(n, 'g', -1, 64)
	}
	return text
}

// MaxChoices is how many models an option names at most, and maxNumbers how many numbers each has.
const (
	MaxChoices = 16
	maxNumbers = 8
)

// ParseChoices reads a text such as "style:0.8,detail": models by name, each once, with finite numbers behind colons. An empty
// text names none.
func ParseChoices(text string) ([]Choice, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var out []Choice
	for entry := range strings.SplitSeq(text, ",") {
		if len(out) == MaxChoices {
			return nil, fmt.Errorf("more than %d names", MaxChoices)
		}
		name, numbers, more := strings.Cut(entry, ":")
		c := Choice{Name: strings.TrimSpace(name)}
		for more {
			var number string
			number, numbers, more = strings.Cut(numbers, ":")
			n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			if err != nil || math.IsInf(n, 0) || math.IsNaN(n) {
				return nil, fmt.Errorf("%q behind %q is no number", Excerpt(number, 40), Excerpt(c.Name, 80))
			}
			if len(c.Numbers) == maxNumbers {
				return nil, fmt.Errorf("more than %d numbers behind %q", maxNumbers, Excerpt(c.Name, 80))
			}
			c.Numbers = append(c.Numbers, n)
		}
		if c.Name == "" {
			return nil, fmt.Errorf("name %d is empty", len(out)+1)
		}
		if slices.ContainsFunc(out, func(o Choice) bool { return o.Name == c.Name }) {
			return nil, fmt.Errorf("%q is named twice", Excerpt(c.Name, 80))
		}
		out = append(out, c)
	}
	return out, nil
}

// Chosen are the models that an option names; none of a text that ParseChoices does not read.
func (o Options) Chosen(option string) []Choice {
	choices, _ := ParseChoices(o[option].Text)
	return choices
}

// Choose is the recipe of a job with some options: each slot gives way to members of the models that its option names, those
// of which that has tells to have the part.
func (r Recipe) Choose(o Options, has func(model, part string) bool) Recipe {
	r.Turns = slices.Clone(r.Turns)
	for i := range r.Turns {
		var members []Member
		for _, m := range r.Turns[i].Members {
			if m.Option == "" {
				members = append(members, m)
				continue
			}
			for _, c := range o.Chosen(m.Option) {
				if has(c.Name, m.Component) {
					members = append(members, Member{Component: c.Name + "/" + m.Component, With: m.With})
				}
			}
		}
		r.Turns[i].Members = members
	}
	return r
}

// CheckInputs refuses a job whose options name models without the inputs that those are given, and one that has inputs of models
// that no option names. InvalidField of the input, or of an option that names too many.
func (r Recipe) CheckInputs(o Options, has func(input string) bool) error {
	for _, s := range r.Options {
		chosen := o.Chosen(s.Name)
		if n := len(s.Inputs); n > 0 && len(chosen) > n {
			return Invalid(InvalidField, s.Name, o[s.Name], fmt.Sprintf("at most %s", Count(n, "name")))
		}
		for i, input := range s.Inputs {
			switch named := i < len(chosen); {
			case named && !has(input):
				return Invalid(InvalidField, input, "no file", fmt.Sprintf("one for %s, which %s names", chosen[i].Name, s.Name))
			case !named && has(input):
				return Invalid(InvalidField, input, "a file", fmt.Sprintf("none, since %s names %s", s.Name, Count(len(chosen), "model")))
			}
		}
	}
	return nil
}
