package stageengine

import (
	"cmp"
	"context"
	"os"
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// Equal is a part that models have in common: where they are served together it is one component.
type Equal struct {
	Kind   stage.Kind
	Models []string // two or more, sorted; the first gives the component its name
}

// comparer is a stage that knows which of its models are equal.
type comparer interface {
	// unread is the bytes of the files that equal reads.
	unread() int64
	// equal groups the models whose parts are equal; read hears of the bytes read.
	equal(ctx context.Context, read func(bytes int64)) ([][]string, error)
}

// EqualParts finds the equal parts of models, whose weights are there, as services do whose digests are known. progress hears how
// many bytes of the files have been read of all that are; there are none where settings or tensors differ. The error of ctx,
// ModelNotFound, ModelInvalid.
func EqualParts(ctx context.Context, o Options, models []string, progress func(read, all int64)) ([]Equal, error) {
	for _, m := range models {
		if _, err := o.Library.path(m); err != nil {
			return nil, err
		}
	}
	o.Library = o.Library.only(models...)
	stages := []struct {
		kind stage.Kind
		comparer
	}{{stage.KindEncoder, NewEncoder(o)}, {stage.KindDenoiser, NewDenoiser(o)}, {stage.KindDecoder, NewDecoder(o)}}
	read, all := int64(0), int64(0)
	for _, s := range stages {
		all += s.unread()
	}
	var out []Equal
	for _, s := range stages {
		groups, err := s.equal(ctx, func(bytes int64) {
			read += bytes
			progress(read, all)
		})
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			out = append(out, Equal{s.kind, g})
		}
	}
	return out, nil
}

func (s *shelf[N]) unread() (sum int64) {
	for _, b := range s.alike() {
		for _, path := range b.files {
			if info, err := os.Stat(path); err == nil {
				sum += info.Size()
			}
		}
	}
	return sum
}

func (s *shelf[N]) equal(ctx context.Context, read func(bytes int64)) ([][]string, error) {
	names := map[string][]string{} // by digest
	for _, b := range s.alike() {
		sum, err := s.hash(ctx, b, read)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, modelError(err, s.kind, b.component.Model, b.path)
		}
		names[sum] = append(names[sum], b.component.Model)
	}
	var out [][]string
	for _, n := range names {
		if len(n) > 1 {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
	return out, nil
}
