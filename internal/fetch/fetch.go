package fetch

import (
	"context"
	"fmt"
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

// Progress is told what happens, by several at once.
type Progress interface {
	// Line is something to know, once.
	Line(format string, args ...any)
	// Bytes is how far a file is; all is 0 while nobody knows.
	Bytes(name string, done, all int64)
}

// Options say how models are fetched.
type Options struct {
	Into   string
	Token  string // bearer token for URLs with https; none if empty
	Verify bool   // whether to read again what is there already
	// Progress may not be nil.
	Progress Progress

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
	r := &run{Options: o, folder: folder}
	missing := m.Models
	if !o.Verify {
		if missing, err = r.missing(missing); err != nil || len(missing) == 0 {
			return err
		}
	}
	unlock, err := folder.Lock(ctx, func() { o.Progress.Line("waiting for another process that fills %s", o.Into) })
	if err != nil {
		return err
	}
	defer unlock()
	if o.Verify {
		if err := r.verify(ctx, m.Models); err != nil {
			return err
		}
	}
	if missing, err = r.missing(missing); err != nil { // somebody else may have been at work
		return err
	}
	for _, model := range missing {
		if err := r.model(ctx, model); err != nil {
			return err
		}
	}
	return nil
}

// run is a call of Run.
type run struct {
	Options
	folder *modelfolder.Folder
}

// missing are the models that are not there as the manifest has them; the others are told of.
func (r *run) missing(models []Model) (missing []Model, err error) {
	for _, m := range models {
		record, ok, err := r.folder.Use(m.Name)
		if err != nil {
			return nil, err
		}
		if !ok || len(record.Files) != len(m.Files) || slices.ContainsFunc(m.Files, func(f File) bool {
			has, ok := record.Of(f.Path)
			return !ok || has.SHA256 != f.SHA256
		}) {
			missing = append(missing, m)
			continue
		}
		r.Progress.Line("%s is complete, %d bytes, %s", m.Name, record.Bytes(), record.Digest())
	}
	return missing, nil
}

// verify reads the models that are there, and forgets what is damaged.
func (r *run) verify(ctx context.Context, models []Model) error {
	for _, m := range models {
		damaged, err := r.folder.Verify(ctx, m.Name, func(done, all int64) { r.Progress.Bytes("verifying "+m.Name, done, all) })
		if err != nil {
			return err
		}
		if len(damaged) > 0 {
			r.Progress.Line("%s is damaged: %q", m.Name, damaged)
		}
	}
	return nil
}

// model fetches what is missing of a model and puts it in its place.
func (r *run) model(ctx context.Context, m Model) error {
	draft, err := r.folder.Draft(m.Name)
	if err != nil {
		return err
	}
	old := modelfolder.ReadRecord(r.folder.Path(m.Name))
	var todo []File
	var paths []string
	var needed int64
	for _, f := range m.Files {
		paths = append(paths, f.Path)
		if has, ok := draft.Of(f.Path); ok && has.SHA256 == f.SHA256 {
			continue
		}
		if has, ok := old.Of(f.Path); ok && has.SHA256 == f.SHA256 && draft.Reuse(has) {
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
	if err := r.download(ctx, m.Name, draft, todo); err != nil {
		return err
	}
	if err := draft.Publish(paths); err != nil {
		return err
	}
	record, ok, err := r.folder.Use(m.Name)
	if err == nil && !ok {
		err = fmt.Errorf("%s changed while it was fetched", m.Name)
	}
	if err == nil {
		r.Progress.Line("%s is complete, %d bytes, %s", m.Name, record.Bytes(), record.Digest())
	}
	return err
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
