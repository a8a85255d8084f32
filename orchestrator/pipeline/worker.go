package pipeline

import (
	"slices"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// worker runs a job.
type worker struct {
	*Pipeline
	id    residency.JobID
	job   *Job
	steps []stage.Step
	model fleet.Model // as it was when the job was planned
	emit  func(Event)
	news  *sync.Cond // that a value is there or a step has ended

	// The job's mu holds what follows, and the job.
	plan     Plan
	shapes   map[string]stage.Options // of turns that were planned anew, see measured
	usage    map[stage.Kind]*Usage
	peak     map[string]int64 // reserved bytes by device
	told     fleet.Model      // whose editions the job is made with
	used     map[string]use   // of them, by component of the model
	mixed    bool             // another one turned up
	panicked any
}

func newWorker(p *Pipeline, id residency.JobID, job *Job, plan Plan, emit func(Event)) *worker {
	w := &worker{
		Pipeline: p, id: id, job: job, steps: job.Spec.steps(), model: plan.model, emit: emit, plan: plan, news: sync.NewCond(&job.mu),
		shapes: map[string]stage.Options{},
		usage:  map[stage.Kind]*Usage{}, peak: map[string]int64{}, told: plan.model, used: map[string]use{},
	}
	for _, s := range w.steps {
		w.usage[s.Turn.Kind] = &Usage{Kind: s.Turn.Kind}
	}
	for name, identity := range job.Identities {
		w.used[name] = use{edition: stage.Edition{Identity: identity}, turns: 1}
	}
	return w
}

// takes tells whether a turn takes a value.
func takes(t stage.Turn, name string) bool {
	return slices.ContainsFunc(t.Takes, func(p stage.Port) bool { return p.Name == name })
}

// takenBy tells whether a step takes the value: of its image or all, and of its unit if it comes in units.
func (v Value) takenBy(s stage.Step) bool {
	return takes(s.Turn, v.Name) && (v.Image == s.Image || v.Image == ofJob) && (v.Units == 0 || v.Unit == s.Unit)
}

// begins tells whether a step can begin: there is all that it takes, its image is not too far ahead, and it is of the last turn, which
// is taken for several images at once, or the one before of its turn has ended. mu is held.
func (w *worker) begins(i int) bool {
	s, first := w.steps[i], slices.Index(w.job.Done, false)
	for j := first; j < i; j++ {
		e := w.steps[j]
		alike := e.Turn.Name == s.Turn.Name && s.Turn.Name != w.steps[len(w.steps)-1].Turn.Name
		feeds := (e.Image == s.Image || !e.Turn.EachImage) && slices.ContainsFunc(e.Turn.Gives, func(p stage.Port) bool {
			return takes(s.Turn, p.Name) && !slices.ContainsFunc(w.job.Values, func(v Value) bool { return v.Name == p.Name && v.takenBy(s) })
		})
		if !w.job.Done[j] && (alike || feeds) {
			return false
		}
	}
	return s.Image-w.steps[first].Image <= maxAhead
}

// taken are the values that a step takes.
func (w *worker) taken(s stage.Step) (out stage.Values) {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	for _, v := range w.job.Values {
		if v.takenBy(s) {
			out = append(out, v.Value)
		}
	}
	if takes(s.Turn, parameters) && w.job.Spec.has(parameters) {
		out = append(out, stage.Value{Name: parameters, File: &stage.File{Media: "text/plain", Data: []byte(w.job.Spec.text(s.Image, w.job.computes()))}})
	}
	return out
}

// hand hands on what a step gave: to the steps that take it, and a file that none takes to the caller. Work that was resumed gives
// units again.
func (w *worker) hand(s stage.Step, v stage.Value) {
	value := Value{ofJob, v}
	if s.Turn.EachImage {
		value.Image = s.Image
	}
	w.job.mu.Lock()
	if slices.ContainsFunc(w.steps, func(s stage.Step) bool { return takes(s.Turn, v.Name) }) {
		if !slices.ContainsFunc(w.job.Values, func(had Value) bool {
			return had.Name == v.Name && had.Image == value.Image && had.Unit == v.Unit
		}) {
			w.job.Values = append(w.job.Values, value)
			w.news.Broadcast()
		}
		w.job.mu.Unlock()
		return
	}
	w.job.mu.Unlock()
	if v.File != nil {
		w.emit(Image{Index: s.Image, Unit: v.Unit, Units: v.Units, Seed: w.job.Spec.seed(s.Image), File: *v.File})
	}
}

// wake has steps that wait look again.
func (w *worker) wake() {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	w.news.Broadcast()
}

// left tells whether a step has not ended that takes a value. mu is held.
func (w *worker) left(v Value) bool {
	for i, s := range w.steps {
		if !w.job.Done[i] && v.takenBy(s) {
			return true
		}
	}
	return false
}

// ended counts a step as taken, and lets go what no step takes any more.
func (w *worker) ended(i int) {
	w.job.mu.Lock()
	w.job.Done[i] = true
	delete(w.job.Checkpoints, i)
	w.job.Values = slices.DeleteFunc(w.job.Values, func(v Value) bool { return !w.left(v) })
	w.news.Broadcast()
	w.job.mu.Unlock()
	w.announce()
}

// checkpoint keeps how far a step has come; nil is its start.
func (w *worker) checkpoint(i int, c *stage.Checkpoint) {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	w.job.Checkpoints[i] = c
}

// resume is where a step goes on, nil at its start.
func (w *worker) resume(i int) *stage.Checkpoint {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	return w.job.Checkpoints[i]
}

// reached is the step of the checkpoint where a step goes on.
func (w *worker) reached(i int) int {
	if c := w.resume(i); c != nil {
		return c.Step
	}
	return 0
}

// announce tells the keeper every step that the job will still take, in order.
func (w *worker) announce() {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	var needs []residency.Need
	for i, s := range w.steps {
		if !w.job.Done[i] {
			needs = append(needs, w.need(s.Turn))
		}
	}
	w.Keeper.Announce(w.id, needs)
}

// need is what a turn takes. mu is held.
func (w *worker) need(t stage.Turn) residency.Need {
	n := residency.Need{Kind: t.Kind, Components: w.Fleet.Parts(w.model, t), Footprints: w.plan.Turns[t.Name], Identities: map[string]string{}, Work: w.sized(t).work(t)}
	for i, own := range t.Components() {
		if identity := w.used[own].edition.Identity; identity != "" {
			n.Identities[n.Components[i]] = identity
		}
	}
	return n
}

func (w *worker) summary(total time.Duration) Summary {
	w.job.mu.Lock()
	defer w.job.mu.Unlock()
	s := Summary{Total: total}
	for _, kind := range stage.Kinds() {
		if u := w.usage[kind]; u != nil {
			s.Stages = append(s.Stages, *u)
		}
	}
	for _, bytes := range w.peak {
		s.PeakBytes += bytes
	}
	return s
}
