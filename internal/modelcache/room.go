package modelcache

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/internal/modelfolder"
	"github.com/triptych-serving/triptych/stage"
)

// keep is how long a model stays that was asked for and is not served yet: a pod that has filled it may take its time to start.
const keep = 15 * time.Minute

// cached is a model of the fast folder, as far as room is concerned.
type cached struct {
	model string
	bytes int64
	used  time.Time
}

// fits refuses models that are more than the limit by themselves.
func (r *run) fits() error {
	var needed int64
	for _, s := range r.sources {
		needed += s.bytes()
	}
	if r.Limit > 0 && needed > r.Limit {
		return tooMuch("the whole of "+strings.Join(r.wanted, ", "), needed, r.Limit, "")
	}
	return nil
}

func tooMuch(what string, needed, limit int64, why string) error {
	return stage.Errorf(stage.ModelDoesNotFit, "%s needs %d bytes, and the limit is %d%s", what, needed, limit, why).
		With("needed_bytes", fmt.Sprint(needed)).With("limit_bytes", fmt.Sprint(limit))
}

// makeRoom removes models that were not used for longest until one fits within the limit beside the others. Those that this run
// is for stay, and so do those that are served or were asked for lately.
func (r *run) makeRoom(model string) error {
	if r.Limit == 0 {
		return nil
	}
	others, err := r.others(model)
	if err != nil {
		return err
	}
	total := r.sources[model].bytes()
	for _, c := range others {
		total += c.bytes
	}
	lately := time.Now().Add(-keep)
	for _, c := range others {
		if total <= r.Limit {
			return nil
		}
		if slices.Contains(r.wanted, c.model) || c.used.After(lately) {
			continue
		}
		done, err := r.folder.Remove(c.model, c.used)
		if err != nil {
			return err
		}
		if done {
			total -= c.bytes
			r.Progress.Line("%s was removed, %d bytes, last used at %s", c.model, c.bytes, c.used.Format(time.RFC3339))
		}
	}
	if total > r.Limit {
		return tooMuch(model, r.sources[model].bytes(), r.Limit, fmt.Sprintf("; %d bytes are of models that are served, were asked for within the last %v, or go with it", total-r.sources[model].bytes(), keep))
	}
	return nil
}

// others are the models beside one, the one first that was not used for longest. Those that are served are used now. What was begun
// of others is removed: they are not being filled, since this process has the lock.
func (r *run) others(model string) (all []cached, err error) {
	begun, err := r.folder.Drafts()
	if err != nil {
		return nil, err
	}
	for _, other := range begun {
		if other != model && !slices.Contains(r.wanted, other) {
			if err := r.folder.DiscardDraft(other); err != nil {
				return nil, err
			}
		}
	}
	models, err := r.folder.Models()
	if err != nil {
		return nil, err
	}
	for _, other := range models {
		if other == model {
			continue
		}
		if r.folder.InUse(other) {
			if _, _, err := r.folder.Use(other); err != nil {
				return nil, err
			}
		}
		all = append(all, cached{other, modelfolder.ReadRecord(r.folder.Path(other)).Bytes(), r.folder.Used(other)})
	}
	slices.SortFunc(all, func(a, b cached) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.model, b.model)) })
	return all, nil
}
