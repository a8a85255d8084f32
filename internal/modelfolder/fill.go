package modelfolder

import (
	"context"
	"fmt"
)

// Progress is told what happens, by several at once.
type Progress interface {
	// Line is something to know, once.
	Line(format string, args ...any)
	// Bytes is how far something is; all is 0 while nobody knows.
	Bytes(name string, done, all int64)
}

// Filling says which models are to be complete in a folder.
type Filling struct {
	Models []string
	Verify bool // whether to read again what is there already
	// Is tells whether a record is that of the model as it is to be.
	Is func(model string, r Record) bool
	// Make makes a model and publishes it; the folder's lock is held.
	Make     func(ctx context.Context, model string) error
	Progress Progress
}

// Fill makes the models that are missing, and marks all as used. Of several processes one fills the folder and the others wait,
// but for those that miss nothing.
func (f *Folder) Fill(ctx context.Context, o Filling) (err error) {
	missing := o.Models
	if !o.Verify {
		if missing, err = f.missing(o, missing); err != nil || len(missing) == 0 {
			return err
		}
	}
	unlock, err := f.lock(ctx, func() { o.Progress.Line("waiting for another process that fills %s", f.dir) })
	if err != nil {
		return err
	}
	defer unlock()
	if o.Verify {
		if err := f.verifyAll(ctx, o); err != nil {
			return err
		}
	}
	if missing, err = f.missing(o, missing); err != nil { // somebody else may have been at work
		return err
	}
	for _, model := range missing {
		if err := o.Make(ctx, model); err != nil {
			return err
		}
		record, ok, err := f.Use(model)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%s changed while it was made", model)
		}
		o.complete(model, record)
	}
	return nil
}

// missing are the models that are not there as they are to be; the others are told of, and marked as used.
func (f *Folder) missing(o Filling, models []string) (missing []string, err error) {
	for _, model := range models {
		record, ok, err := f.Use(model)
		switch {
		case err != nil:
			return nil, err
		case ok && o.Is(model, record):
			o.complete(model, record)
		default:
			missing = append(missing, model)
		}
	}
	return missing, nil
}

func (o Filling) complete(model string, record Record) {
	o.Progress.Line("%s is complete, %d bytes, %s", model, record.Bytes(), record.Digest())
}

// verifyAll reads the models that are there, and forgets what is damaged.
func (f *Folder) verifyAll(ctx context.Context, o Filling) error {
	for _, model := range o.Models {
		damaged, err := f.verify(ctx, model, func(done, all int64) { o.Progress.Bytes("verifying "+model, done, all) })
		if err != nil {
			return err
		}
		if len(damaged) > 0 {
			o.Progress.Line("%s is damaged: %q", model, damaged)
		}
	}
	return nil
}
