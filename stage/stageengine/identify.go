package stageengine

import (
	"context"
	"io"

	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// Identities reads all weights of a model that can be loaded, and gives the identity of each component by its name, as
// services tell it once they have loaded them. The error of ctx, ModelNotFound, ModelInvalid of what the model cannot do
// without, ModelChanged while they are read.
func Identities(ctx context.Context, o Options, model string) (map[string]string, error) {
	if _, err := o.Library.Path(model); err != nil {
		return nil, err
	}
	o.Library = o.Library.Only(model)
	out := map[string]string{}
	for _, kind := range stage.Kinds() {
		s := New(kind, o)
		m := s.model(model)
		if m.problem != nil {
			return nil, m.problem
		}
		for _, part := range s.parts(m) {
			identity, err := s.identified(ctx, part.Name)
			switch {
			case err == nil:
				out[part.Name] = identity
			case stage.ReasonOf(err) != stage.ModelInvalid || m.files.Needs(part.Name):
				return nil, err
			}
		}
	}
	return out, nil
}

// identified reads the weights of a component from its files.
func (s *Stage) identified(ctx context.Context, component string) (string, error) {
	b, err := s.find(component)
	if err != nil {
		return "", err
	}
	b.prints = &weights.Prints{}
	if err := b.readTo(ctx, s, b.prints, io.Discard, func(int64) {}); err != nil {
		return "", s.loadError(err, b)
	}
	if changed, _ := b.changed(); changed {
		return "", s.changedError(b)
	}
	b.identify()
	return b.edition().Identity, nil
}
