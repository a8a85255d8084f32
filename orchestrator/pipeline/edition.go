package pipeline

import (
	"context"
	"reflect"
	"slices"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// A request is made with one edition of the model: those that the services told of when it was accepted. Another one that turns
// up before anything was made in its stage is as good, if those are still there that all else was made with; later it ends the
// request.

// use is the edition that the job works with of a component.
type use struct {
	stage   residency.StageID
	edition stage.Edition
	turns   int // that are at work or have made something
}

// differs reports whether an edition is known to be another one than is used.
func (u use) differs(at residency.StageID, e stage.Edition) bool {
	if u.stage == at {
		return u.edition.Differs(e)
	}
	return u.edition.Identity != "" && e.Identity != "" && u.edition.Identity != e.Identity
}

// admits checks the editions of the weights that were leased for a turn. The error is ModelChanged.
func (w *worker) admits(ctx context.Context, t stage.Turn, l *residency.Lease) error {
	if w.takes(t, l) || w.adopts(ctx, t) && w.takes(t, l) {
		return nil
	}
	w.job.mu.Lock()
	w.mixed = true
	w.job.mu.Unlock()
	return stage.Errorf(stage.ModelChanged, "the files of model %q have changed while the request was made with them: the %v has others now", w.model.Name, t.Kind).
		With("model", w.model.Name).With("stage", t.Kind.String())
}

// takes counts a turn with the editions of a lease, unless one is another than the job is made with.
func (w *worker) takes(t stage.Turn, l *residency.Lease) bool {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	for i, own := range t.Components() {
		u, part := w.used[own], l.Components[i]
		if e := l.Editions[part]; u.turns > 0 && u.differs(l.Stage, e) || u.turns == 0 && w.told.Edition(l.Stage, part).Differs(e) {
			return false
		}
	}
	for i, own := range t.Components() {
		u, e := w.used[own], l.Editions[l.Components[i]]
		if u.turns == 0 || e.Identity != "" {
			u.stage, u.edition = l.Stage, e
			w.job.Identities[own] = e.Identity
		}
		w.job.Computes[own] = w.Fleet.Compute(l.Stage)
		u.turns++
		w.used[own] = u
	}
	return true
}

// unmade takes back a turn of which nothing is left.
func (w *worker) unmade(t stage.Turn) {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	for _, own := range t.Components() {
		u := w.used[own]
		if u.turns--; u.turns == 0 {
			delete(w.job.Identities, own)
			delete(w.job.Computes, own)
		}
		w.used[own] = u
	}
}

// hasMade reports whether a turn with one of the components is at work or has made something.
func (w *worker) hasMade(t stage.Turn) bool {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	return slices.ContainsFunc(t.Components(), func(own string) bool { return w.used[own].turns > 0 })
}

// adopts goes on with the editions that there are by now, if nothing was made with a turn's components, and what was made with others
// would be made the same again.
func (w *worker) adopts(ctx context.Context, t stage.Turn) bool {
	if w.hasMade(t) {
		return false
	}
	now, err := w.Fleet.Anew(ctx, w.model)
	if err != nil || !alike(now, w.model) {
		return false
	}
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	for own, u := range w.used {
		e, before := now.Edition(u.stage, now.Part(own)), w.model.Edition(u.stage, own)
		asOwn := w.model.Part(own) != own && before != stage.Edition{} && !before.Differs(e) // it was equal to what is used
		if u.turns > 0 && u.differs(u.stage, e) && !asOwn {
			return false
		}
	}
	w.told = now
	return true
}

// alike tells whether requests of two models are planned alike.
func alike(a, b fleet.Model) bool {
	return reflect.DeepEqual(a.Recipes, b.Recipes) && slices.EqualFunc(a.Components, b.Components, func(a, b fleet.Component) bool {
		return a.Name == b.Name && a.WeightsBytes == b.WeightsBytes
	})
}
