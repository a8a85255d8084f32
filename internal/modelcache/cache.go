// Package modelcache copies models from a slow folder to a fast one that the services of a node serve from: once however many ask,
// known by their SHA-256, within a limit, and never away from under whoever serves one. It may import internal/modelfolder and stage.
package modelcache

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/internal/modelfolder"
	"github.com/triptych-serving/triptych/stage"
)

// Options say what is copied, and to where.
type Options struct {
	From, Into string
	Models     []string // those that are asked for; all of From if there are none
	Limit      int64    // bytes that the models in Into may have together; 0 is no limit
	Verify     bool     // whether to read again what is in Into already
	// Progress may not be nil.
	Progress modelfolder.Progress
}

// Run makes models complete in the fast folder, as they are in the slow one. What it was not able to finish is gone on with by the
// next run. Errors are ModelNotFound, ModelDoesNotFit with the bytes that are needed and the limit, or DiskFull.
func Run(ctx context.Context, o Options) error {
	if err := apart(o.From, o.Into); err != nil {
		return err
	}
	all, err := modelsOf(o.From)
	if err != nil {
		return err
	}
	r := &run{Options: o, sources: map[string]source{}}
	if len(o.Models) == 0 {
		for name := range all {
			r.wanted = append(r.wanted, name)
		}
		slices.Sort(r.wanted)
	}
	for _, name := range o.Models {
		if all[name] == "" {
			return stage.NoSuchModel(name, keys(all))
		}
		if !slices.Contains(r.wanted, name) {
			r.wanted = append(r.wanted, name)
		}
	}
	if err := r.scan(all); err != nil {
		return err
	}
	if err := r.fits(); err != nil {
		return err
	}
	if r.folder, err = modelfolder.Open(o.Into); err != nil {
		return err
	}
	return r.folder.Fill(ctx, modelfolder.Filling{
		Models: r.wanted, Verify: o.Verify, Progress: o.Progress, Make: r.make,
		Is: func(model string, record modelfolder.Record) bool { return r.sources[model].is(record) },
	})
}

// run is a call of Run.
type run struct {
	Options
	folder  *modelfolder.Folder
	wanted  []string
	sources map[string]source
}

// scan looks at the files of what is wanted. A model that nobody asked for by its name is left out when they cannot be copied, as
// long as another one can be: one that is broken must not keep a node from the others.
func (r *run) scan(all map[string]string) error {
	var sound []string
	var broken error
	for _, name := range r.wanted {
		source, err := scan(all[name])
		if err == nil {
			r.sources[name], sound = source, append(sound, name)
			continue
		}
		broken = fmt.Errorf("%s: %w", name, err)
		if len(r.Models) > 0 {
			return broken
		}
		r.Progress.Line("%v; the model is left out", broken)
	}
	if r.wanted = sound; len(sound) == 0 {
		return broken
	}
	return nil
}

// make makes room for a model and fills it.
func (r *run) make(ctx context.Context, model string) error {
	if err := r.makeRoom(model); err != nil {
		return err
	}
	if err := r.fill(ctx, model); err != nil {
		return fmt.Errorf("%s: %w", model, err)
	}
	return nil
}

// fill copies what is missing of a model and puts it in its place.
func (r *run) fill(ctx context.Context, model string) error {
	draft, err := r.folder.Draft(model)
	if err != nil {
		return err
	}
	from := r.sources[model]
	var todo []sourceFile
	var paths []string
	var done, needed int64
	for _, f := range from.files {
		paths = append(paths, f.path)
		if draft.Has(f.path, f.is) {
			done += f.size
			continue
		}
		todo = append(todo, f)
		needed += f.size
	}
	if err := r.folder.Room(needed); err != nil {
		return err
	}
	for _, f := range todo {
		err := from.copy(ctx, draft, f, func(n int64) {
			done += n
			r.Progress.Bytes("filling "+model, done, from.bytes())
		})
		if err != nil {
			return err
		}
	}
	return draft.Publish(paths)
}

// apart refuses folders of which one is in the other.
func apart(from, into string) error {
	a, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	b, err := filepath.Abs(into)
	if err != nil {
		return err
	}
	inside := func(a, b string) bool {
		return strings.HasPrefix(b+string(filepath.Separator), a+string(filepath.Separator))
	}
	if inside(a, b) || inside(b, a) {
		return stage.Invalid(stage.InvalidField, "into", into, "a folder apart from that of the models")
	}
	return nil
}
