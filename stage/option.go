package stage

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// OptionType is what an option's value is.
type OptionType uint8

// The types.
const (
	Int OptionType = iota + 1
	Float
	Text
	Bool
)

// String is the type's name in requests.
func (t OptionType) String() string {
	switch t {
	case Int:
		return "int"
	case Float:
		return "float"
	case Text:
		return "text"
	case Bool:
		return "bool"
	}
	return fmt.Sprintf("OptionType(%d)", uint8(t))
}

// Parse reads a value as people write it. The error says nothing that the type's name does not.
func (t OptionType) Parse(text string) (Option, error) {
	o := Option{Type: t}
	var err error
	switch t {
	case Int:
		o.Int, err = strconv.ParseInt(text, 10, 64)
	case Float:
		o.Float, err = strconv.ParseFloat(text, 64)
	case Text:
		o.Text = text
	case Bool:
		o.Bool, err = strconv.ParseBool(text)
	}
	return o, err
}

// Option is the value of an option; the zero Option is none.
type Option struct {
	Type  OptionType
	Int   int64
	Float float64
	Text  string
	Bool  bool
}

// IntOption is an integer.
func IntOption(v int64) Option { return Option{Type: Int, Int: v} }

// FloatOption is a number.
func FloatOption(v float64) Option { return Option{Type: Float, Float: v} }

// TextOption is a text.
func TextOption(v string) Option { return Option{Type: Text, Text: v} }

// BoolOption is yes or no.
func BoolOption(v bool) Option { return Option{Type: Bool, Bool: v} }

// String writes the value for people.
func (o Option) String() string {
	switch o.Type {
	case Int:
		return strconv.FormatInt(o.Int, 10)
	case Float:
		return strconv.FormatFloat(o.Float, 'g', -1, 64)
	case Text:
		return o.Text
	case Bool:
		return strconv.FormatBool(o.Bool)
	}
	return ""
}

// Options are values by the names of OptionSpecs.
type Options map[string]Option

// Of gives those of some names.
func (o Options) Of(names []string) Options {
	out := Options{}
	for _, name := range names {
		if v, ok := o[name]; ok {
			out[name] = v
		}
	}
	return out
}

// OptionSpec is an option that a model has: what a request may say, and what holds where it says nothing.
type OptionSpec struct {
	Name    string
	Type    OptionType
	Default Option // the zero Option is none: a turn that reads the option gets nothing
	// Min and Max bound an Int and a Float, and the bytes of a Text; both 0 is no bound.
	Min, Max float64
	Multiple int64    // of an Int; 0 is any
	Choices  []string // of a Text; none is any
	// Aliases are other names of Choices, in small letters, that requests may have. Where there are any, Choices are known in all letters.
	Aliases map[string]Alias
	Tokens  int    // of a Text: so many tokens of it are taken at once, what is beyond them in further parts or not at all; 0 is no limit
	Shape   bool   // what a turn takes in memory depends on it
	Unit    string // of an Int: "pixels" of a side, or nothing
	Refused Reason // of the error when a value is not accepted; empty is InvalidField
	// Problem tells why there is no Default although turns need the option: a request has to say it.
	Problem string
	// Adapter makes a Text name models of this kind (Model.Adapter), as ParseChoices reads it.
	Adapter string
	// Tag lets the options InTexts name such models too, as <TAG:NAME:NUMBER>; empty is none.
	Tag     string
	InTexts []string
	// Inputs are what the models that an Adapter's option names are given, one each in their order, see Recipe.CheckInputs.
	Inputs []string
}

// Missing is a request that does not say an option that it has to.
func (s OptionSpec) Missing(field string) *Error {
	return Invalid(s.reason(), field, "", s.Accepted()+", since "+s.Problem)
}

// Check refuses a value that is not accepted, for the reason Refused; field names it in the error.
func (s OptionSpec) Check(field string, o Option) error {
	reason := s.reason()
	switch {
	case o.Type != s.Type:
		return Invalid(reason, field, o, "a value of type "+s.Type.String())
	case s.Type == Int && s.Unit == "pixels":
		return s.checkSide(field, o.Int)
	case s.Type == Int:
		if s.bounded() && (float64(o.Int) < s.Min || float64(o.Int) > s.Max) || s.Multiple > 0 && o.Int%s.Multiple != 0 {
			return Invalid(reason, field, o, s.Accepted())
		}
	case s.Type == Float:
		if math.IsNaN(o.Float) || math.IsInf(o.Float, 0) || s.bounded() && (o.Float < s.Min || o.Float > s.Max) {
			return Invalid(reason, field, o, s.Accepted())
		}
	case s.Type == Text && len(s.Choices) > 0:
		if !slices.Contains(s.Choices, o.Text) {
			return Invalid(reason, field, o, s.Accepted())
		}
	case s.Type == Text:
		if !utf8.ValidString(o.Text) || s.bounded() && float64(len(o.Text)) > s.Max {
			return Invalid(reason, field, o, fmt.Sprintf("%s, got %d", s.Accepted(), len(o.Text)))
		}
		if at := strings.IndexByte(o.Text, 0); at >= 0 {
			return Invalid(reason, field, o, fmt.Sprintf("text without NUL, got one at byte %d", at))
		}
		if _, err := ParseChoices(o.Text); s.Adapter != "" && err != nil {
			return Invalid(reason, field, o, fmt.Sprintf("%s, but %v", s.Accepted(), err))
		}
	}
	return nil
}

// checkSide refuses a side that is no multiple up to Max. The error names the next sides that are.
func (s OptionSpec) checkSide(field string, side int64) error {
	step, most := max(1, s.Multiple), int64(s.Max)
	if side > 0 && side <= most && side%step == 0 {
		return nil
	}
	var near []string
	below := min(side, most) / step * step
	if below > 0 {
		near = append(near, fmt.Sprint(below))
	}
	if above := max(below, 0) + step; above <= most {
		near = append(near, fmt.Sprint(above))
	}
	accepted := fmt.Sprintf("a multiple of %d up to %d %s, such as %s", step, most, s.Unit, strings.Join(near, " or "))
	if step == 1 {
		accepted = fmt.Sprintf("1 to %d %s", most, s.Unit)
	}
	return Invalid(s.reason(), field, side, accepted)
}

// Alias is what another name of a choice stands for.
type Alias struct {
	Choice string
	Others map[string]string // choices of further options that the name says
}

// Named is a value by the name that it has among Choices, whatever other one it has in a request, and what the name says of further options.
func (s OptionSpec) Named(o Option) (named Option, others map[string]string) {
	said := strings.ToLower(strings.TrimSpace(o.Text))
	alias, ok := s.Aliases[said]
	switch {
	case len(s.Aliases) == 0 || o.Type != Text || slices.Contains(s.Choices, o.Text):
		return o, nil
	case slices.Contains(s.Choices, said):
		return TextOption(said), nil
	case !ok || !slices.Contains(s.Choices, alias.Choice):
		return o, nil
	}
	return TextOption(alias.Choice), alias.Others
}

func (s OptionSpec) reason() Reason { return cmp.Or(s.Refused, InvalidField) }

func (s OptionSpec) bounded() bool { return s.Min != 0 || s.Max != 0 }

// Accepted says in words what Check accepts.
func (s OptionSpec) Accepted() string {
	switch {
	case len(s.Choices) > 0:
		return "one of " + strings.Join(s.Choices, ", ")
	case s.Adapter != "":
		return fmt.Sprintf("at most %d names of models of kind %s, such as name:0.8,other", MaxChoices, s.Adapter)
	case s.Type == Text && s.bounded():
		return fmt.Sprintf("at most %v bytes of UTF-8", s.Max)
	case s.Type == Text || s.Type == Bool:
		return "any " + s.Type.String()
	}
	text := "any number"
	if s.bounded() {
		text = fmt.Sprintf("a number from %v to %v", s.Min, s.Max)
		if s.Type == Int {
			text = fmt.Sprintf("%v to %v", s.Min, s.Max)
		}
	}
	if s.Multiple > 0 {
		text += fmt.Sprintf(", a multiple of %d", s.Multiple)
	}
	return text
}
