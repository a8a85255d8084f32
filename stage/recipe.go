package stage

import "slices"

// Recipe is how a model does one task, as data: the pipeline runs its turns in order, the ledger is told of them ahead, plans
// and recordings read them.
type Recipe struct {
	Family  string
	Task    string // "generate"
	Inputs  []Port // files that a request may send
	Options []OptionSpec
	Turns   []Turn
}

// Turn is one call of a stage for a job. It works with a set of components, held together.
type Turn struct {
	Name    string
	Kind    Kind
	Members []Member // the first one's family does the work
	Takes   []Port   // values of the job
	Gives   []Port
	Options []string // that it reads, by name
	// EachImage turns are taken for every image of the job, others once. Optional ones are left out where a value is
	// missing that they take and that is not itself optional, and where they have slots alone that nobody is in.
	EachImage, Optional bool
}

// Member is a component that a turn needs, always or where there is the value With, which is one that the turn takes.
type Member struct {
	Component string
	With      string
	// Option makes a slot of it, for any number of components: Component is then a part, such as "unet_lora", of each of the
	// models that this option names, in the option's order. See Recipe.Choose.
	Option string
}

// Port is a value that a turn takes or gives.
type Port struct {
	Name  string
	Media string   // of a file, such as "image/*"; empty of a tensor
	Shape []string // of a tensor: numbers, and names of what a request decides
	// Optional values may be missing.
	Optional bool
	// Units names the Int option that tells how many units the value comes in; empty is whole. A turn that takes a
	// value in units is taken for each of them, as soon as it is there.
	Units string
}

// Option is the spec of an option.
func (r Recipe) Option(name string) (OptionSpec, bool) {
	return first(r.Options, func(s OptionSpec) bool { return s.Name == name })
}

// first is the first of a list that fits.
func first[T any](list []T, fits func(T) bool) (none T, ok bool) {
	if i := slices.IndexFunc(list, fits); i >= 0 {
		return list[i], true
	}
	return none, false
}

// Shape are the options of a turn that decide what it takes in memory.
func (r Recipe) Shape(t Turn, o Options) Options { return o.Of(r.ShapeNames(t)) }

// ShapeNames are the names of those.
func (r Recipe) ShapeNames(t Turn) (names []string) {
	for _, name := range t.Options {
		if s, _ := r.Option(name); s.Shape {
			names = append(names, name)
		}
	}
	return names
}

// For gives the turns of a job that has some values at its start, in order, those left out that it does not take. An optional one
// is not taken either where no component is a member.
func (r Recipe) For(has func(value string) bool) []Turn {
	given := map[string]bool{}
	there := func(name string) bool { return given[name] || has(name) }
	var out []Turn
	for _, t := range r.Turns {
		missing := slices.ContainsFunc(t.Takes, func(p Port) bool { return !p.Optional && !there(p.Name) })
		if t.Optional && missing {
			continue
		}
		t.Members = slices.DeleteFunc(slices.Clone(t.Members), func(m Member) bool { return m.With != "" && !there(m.With) })
		if t.Optional && len(t.Components()) == 0 { // slots that nobody fills
			continue
		}
		for _, p := range t.Gives {
			given[p.Name] = given[p.Name] || !p.Optional
		}
		out = append(out, t)
	}
	return out
}

// WorksWith reports whether components are those of the turn's members, in order. Members that work With a value are among them
// where there is the value; a nil has leaves that open, as a plan does. same tells whether a component serves as a member's. Slots
// take none before Recipe.Choose has made members of them.
func (t Turn) WorksWith(components []string, has func(value string) bool, same func(component, member string) bool) bool {
	for _, m := range t.Members {
		there := len(components) > 0 && same(components[0], m.Component)
		switch {
		case m.Option != "", m.With != "" && (has == nil && !there || has != nil && !has(m.With)):
		case !there:
			return false
		default:
			components = components[1:]
		}
	}
	return len(components) == 0
}

// Components are the names of a turn's members. Slots have none before Recipe.Choose has made members of them.
func (t Turn) Components() []string {
	out := make([]string, 0, len(t.Members))
	for _, m := range t.Members {
		if m.Option == "" {
			out = append(out, m.Component)
		}
	}
	return out
}

// Step is a turn as a job takes it: for an image, and for a unit of the values that come in units.
type Step struct {
	Turn        Turn
	Image, Unit int
}

// Steps lists the steps of a job of so many images in the order in which it finishes them: this is the one place that
// knows it. units tells the value of an Int option. A step can begin when there is all that its turn takes, and one of any turn but
// the last when the step of the same turn before it has ended.
func (r Recipe) Steps(images int, units func(option string) int, has func(value string) bool) []Step {
	in := map[string]string{} // the option that tells the units of a value
	var out []Step
	each := func(t Turn, image int) {
		n := 1
		for _, p := range t.Takes {
			if option := in[p.Name]; option != "" {
				n = units(option)
			}
		}
		for unit := range n {
			out = append(out, Step{t, image, unit})
		}
	}
	turns := r.For(has)
	for len(turns) > 0 {
		alike := 1
		for alike < len(turns) && turns[alike].EachImage == turns[0].EachImage {
			alike++
		}
		for _, t := range turns[:alike] {
			for _, p := range t.Gives {
				in[p.Name] = p.Units
			}
		}
		times := 1
		if turns[0].EachImage {
			times = images
		}
		for image := range times {
			for _, t := range turns[:alike] {
				each(t, image)
			}
		}
		turns = turns[alike:]
	}
	return out
}
