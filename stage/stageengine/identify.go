package stageengine

import (
	"context"

	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// Identities reads all weights of a model that the stages use, and gives the identity of each part, as services tell it once they
// have loaded them. The error of ctx, ModelNotFound, ModelInvalid, ModelChanged while they are read.
func Identities(ctx context.Context, o Options, model string) (map[stage.Kind]string, error) {
	if _, err := o.Library.path(model); err != nil {
		return nil, err
	}
	o.Library = o.Library.only(model)
	out := map[stage.Kind]string{}
	for kind, s := range map[stage.Kind]interface {
		identified(ctx context.Context, model string) (string, error)
	}{stage.KindEncoder: NewEncoder(o), stage.KindDenoiser: NewDenoiser(o), stage.KindDecoder: NewDecoder(o)} {
		var err error
		if out[kind], err = s.identified(ctx, model); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// identified reads the weights of a model from its files.
func (s *shelf[N]) identified(ctx context.Context, model string) (string, error) {
	b, err := s.find(model)
	if err != nil {
		return "", err
	}
	if err := b.readOnce(ctx, s); err != nil {
		return "", s.loadError(err, b)
	}
	if changed, _ := b.changed(); changed {
		return "", s.changedError(b)
	}
	b.identify()
	return b.edition().Identity, nil
}

// readOnce takes prints of all that a load would read.
func (b *book[N]) readOnce(ctx context.Context, s *shelf[N]) error {
	net, err := s.opened(b.path)
	if err != nil {
		return err
	}
	defer net.Close() //nolint:errcheck // it was only read
	b.prints = &weights.Prints{}
	net.Watch(b.prints)
	chunk := make([]byte, 1<<20)
	for _, t := range net.Manifest().Tensors() {
		section, err := net.Source().Section(t.Name)
		if err != nil {
			return err
		}
		for at := int64(0); at < section.Size(); at += int64(len(chunk)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := section.ReadAt(chunk[:min(int64(len(chunk)), section.Size()-at)], at); err != nil {
				return err
			}
		}
	}
	return nil
}
