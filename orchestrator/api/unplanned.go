package api

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/scale"
)

// unplanned are the requests that have begun and that the keeper has not heard of, because their model is not known yet or a stage
// has yet to say what they take.
type unplanned struct {
	changed func()

	mu  sync.Mutex
	all map[string]scale.Unplanned // by id
}

func newUnplanned(changed func()) *unplanned {
	if changed == nil {
		changed = func() {}
	}
	return &unplanned{changed: changed, all: map[string]scale.Unplanned{}}
}

// unheardAfter is how long a request may take to be checked before it counts as one that waits for a stage to tell of its model: one
// that is refused at once must not bring up a stage.
const unheardAfter = 50 * time.Millisecond

// begin adds a request by the model it asks for, if it is not outlined soon. The caller must call the function returned once the keeper
// knows the job, or it has ended.
func (u *unplanned) begin(id, asked string) (end func()) {
	over := false // u.mu holds it
	late := time.AfterFunc(unheardAfter, func() {
		u.change(func() {
			if _, outlined := u.all[id]; !over && !outlined {
				u.all[id] = scale.Unplanned{Job: residency.JobID(id), Asked: asked}
			}
		})
	})
	return sync.OnceFunc(func() {
		late.Stop()
		u.change(func() {
			over = true
			delete(u.all, id)
		})
	})
}

// outline adds a request with what it will take, which has begun and not ended.
func (u *unplanned) outline(id, model string, needs []residency.Need) {
	u.change(func() {
		u.all[id] = scale.Unplanned{Job: residency.JobID(id), Asked: model, Model: model, Needs: needs}
	})
}

func (u *unplanned) change(f func()) {
	u.mu.Lock()
	f()
	u.mu.Unlock()
	u.changed()
}

// list is in the order of ids.
func (u *unplanned) list() (out []scale.Unplanned) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(u.all)) {
		out = append(out, u.all[id])
	}
	return out
}
