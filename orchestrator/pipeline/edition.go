package pipeline

import (
	"context"
	"maps"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// A request is made with one edition of the model: those that the services told of when it was accepted. Another one that turns
// up before anything was made in its stage is as good, if those are still there that all else was made with; later it ends the
// request.

// use is the edition that a kind of stage works with.
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

// admits checks the edition of the weights that were leased for a turn. The error is ModelChanged.
func (j *job) admits(ctx context.Context, kind stage.Kind, lease *residency.Lease) error {
	if j.takes(kind, lease) || j.adopts(ctx, kind) && j.takes(kind, lease) {
		return nil
	}
	j.mu.Lock()
	j.mixed = true
	j.mu.Unlock()
	return stage.Errorf(stage.ModelChanged, "the files of model %q have changed while the request was made with them: the %v has others now", j.spec.Model.Name, kind).
		With("model", j.spec.Model.Name).With("stage", kind.String())
}

// takes counts a turn with the edition of a lease, unless that is another one than the request is made with.
func (j *job) takes(kind stage.Kind, lease *residency.Lease) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	u := j.used[kind]
	if u.turns > 0 && u.differs(lease.Stage, lease.Edition) || u.turns == 0 && j.editions[lease.Stage].Differs(lease.Edition) {
		return false
	}
	if u.turns == 0 || lease.Edition.Identity != "" {
		u.stage, u.edition = lease.Stage, lease.Edition
	}
	u.turns++
	j.used[kind] = u
	return true
}

// unmade takes back a turn of which nothing is left.
func (j *job) unmade(kind stage.Kind) {
	j.mu.Lock()
	defer j.mu.Unlock()
	u := j.used[kind]
	u.turns--
	j.used[kind] = u
}

// made reports whether a turn of a kind of stage is at work or has made something.
func (j *job) made(kind stage.Kind) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.used[kind].turns > 0
}

// adopts goes on with the editions that there are by now, if nothing was made in a kind of stage, and what was made in others would be
// made the same again.
func (j *job) adopts(ctx context.Context, kind stage.Kind) bool {
	if j.made(kind) {
		return false
	}
	now, err := j.Fleet.Anew(ctx, j.spec.Model.Name)
	if err != nil || !alike(now, j.spec.Model) {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, u := range j.used {
		e, own := now.Editions()[u.stage], j.spec.Model.OwnEdition(u.stage)
		asOwn := own != stage.Edition{} && !own.Differs(e) // it was equal to what is used
		if u.turns > 0 && u.differs(u.stage, e) && !asOwn {
			return false
		}
	}
	j.editions = now.Editions()
	return true
}

// alike tells whether requests of two models are planned alike.
func alike(a, b fleet.Model) bool {
	return maps.Equal(a.WeightsBytes, b.WeightsBytes) && a.MaxTokens == b.MaxTokens && a.LatentChannels == b.LatentChannels &&
		a.SpatialFactor == b.SpatialFactor && a.SizeMultiple == b.SizeMultiple
}
