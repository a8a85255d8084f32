package fetch

import (
	"context"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/triptych-serving/triptych/internal/modelfolder"
	"github.com/triptych-serving/triptych/stage"
)

// parallel is how many files are fetched at once: object stores give each connection its share.
const parallel = 4

// Options say how models are fetched.
type Options struct {
	Into   string
	Token  string // bearer token for URLs with https; none if empty
	Verify bool   // whether to read again what is there already
	// Progress may not be nil.
	Progress modelfolder.Progress

	transport http.RoundTripper                          // tests have their own
	pause     func(context.Context, time.Duration) error // the same
	stall     time.Duration                              // stallAfter if 0
}

// Run makes the models of a manifest complete in a folder. What it was not able to finish is gone on with by the next run. Errors
// are DiskFull, or tell which file could not be had and why, without secrets of URLs.
func Run(ctx context.Context, m Manifest, o Options) error {
	folder, err := modelfolder.Open(o.Into)
	if err != nil {
		return err
	}
	if o.transport == nil {
		o.transport = newTransport()
	}
	if o.pause == nil {
		o.pause = pause
	}
	if o.stall == 0 {
		o.stall = stallAfter
	}
	r := &run{Options: o, folder: folder, models: map[string]Model{}}
	var names []string
	for _, m := range m.Models {
		names, r.models[m.Name] = append(names, m.Name), m
	}
	return folder.Fill(ctx, modelfolder.Filling{Models: names, Verify: o.Verify, Is: r.is, Make: r.make, Progress: o.Progress})
}

// run is a call of Run.
type run struct {
	Options
	folder *modelfolder.Folder
	models map[string]Model // by name
}

// is tells whether a record is that of a model as the manifest has it.
func (r *run) is(model string, record modelfolder.Record) bool {
	files := r.models[model].Files
	return len(record.Files) == len(files) && !slices.ContainsFunc(files, func(f File) bool {
		has, ok := record.Of(f.Path)
		return !ok || !f.is(has)
	})
}

// is tells whether an entry is of the file.
func (f File) is(has modelfolder.File) bool { return has.SHA256 == f.SHA256 }

// make fetches what is missing of a model and puts it in its place.
func (r *run) make(ctx context.Context, model string) error {
	draft, err := r.folder.Draft(model)
	if err != nil {
		return err
	}
	var todo []File
	var paths []string
	var needed int64
	for _, f := range r.models[model].Files {
		paths = append(paths, f.Path)
		if draft.Has(f.Path, f.is) {
			continue
		}
		todo = append(todo, f)
		if f.Size != nil {
			needed += *f.Size - size(draft.Partial(f.key()))
		}
	}
	if err := r.folder.Room(needed); err != nil {
		return err
	}
	if err := r.download(ctx, model, draft, todo); err != nil {
		return err
	}
	return draft.Publish(paths)
}

// download gets files into a draft, some at a time.
func (r *run) download(ctx context.Context, model string, draft *modelfolder.Draft, files []File) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	var adding sync.Mutex // of the draft
	for _, f := range files {
		group.Go(func() error {
			d := download{run: r, file: f, name: path.Join(model, f.Path), partial: draft.Partial(f.key())}
			if err := d.do(ctx); err != nil {
				return err
			}
			adding.Lock()
			defer adding.Unlock()
			return draft.Add(d.partial, f.Path, f.SHA256, time.Time{})
		})
	}
	return group.Wait()
}

// Only leaves of a manifest the models of some names. Errors are ModelNotFound.
func (m Manifest) Only(names []string) (Manifest, error) {
	var known []string
	var out Manifest
	for _, model := range m.Models {
		known = append(known, model.Name)
		if slices.Contains(names, model.Name) {
			out.Models = append(out.Models, model)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return out, stage.NoSuchModel(name, known)
		}
	}
	return out, nil
}
