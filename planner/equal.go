package planner

import (
	"context"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// Equal is a component that models have in common: where they are served together it is one.
type Equal struct {
	Kind       stage.Kind
	Components []string // two or more, sorted; the first gives its name to all
}

// EqualParts finds those that are equal of some components, whose weights are there, as services do whose digests are known.
// progress hears how many bytes of weights have been read of all that are; there are none where settings or tensors differ. The
// error of ctx, ModelNotFound, ModelInvalid.
func EqualParts(ctx context.Context, o stageengine.Options, components []string, progress func(read, all int64)) ([]Equal, error) {
	var models []string
	for _, c := range components {
		m := stage.ModelOf(c)
		if _, err := o.Library.Path(m); err != nil {
			return nil, err
		}
		models = append(models, m)
	}
	o.Library, o.Outline = o.Library.Only(models...), false
	read, all := int64(0), int64(0)
	stages := map[stage.Kind]*stageengine.Stage{}
	for _, kind := range stage.Kinds() {
		stages[kind] = stageengine.New(kind, o)
		all += stages[kind].Unread(components)
	}
	var out []Equal
	for _, kind := range stage.Kinds() {
		groups, err := stages[kind].Equal(ctx, components, func(bytes int64) {
			read += bytes
			progress(read, all)
		})
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			out = append(out, Equal{kind, g})
		}
	}
	return out, nil
}
