package api

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// jobPause lies between two messages about a job to one who watches.
const jobPause = time.Second / 4

// jobs is how far jobs are. Those who watch read the latest in their own time, so that none holds up a job.
type jobs struct {
	mu      sync.Mutex
	all     map[string]*triptychv1alpha1.JobProgress // by id; a message is exchanged, never changed
	readers map[chan struct{}]bool                   // of capacity 1, woken by news
}

func newJobs() *jobs {
	return &jobs{all: map[string]*triptychv1alpha1.JobProgress{}, readers: map[chan struct{}]bool{}}
}

// begin adds a job.
func (j *jobs) begin(id string, spec pipeline.Spec) {
	j.change(func() {
		j.all[id] = &triptychv1alpha1.JobProgress{Job: id, Model: spec.Model, Images: int32(spec.ImageCount)}
	})
}

// end takes a job away.
func (j *jobs) end(id string) { j.change(func() { delete(j.all, id) }) }

// hear follows a job that has begun.
func (j *jobs) hear(id string, event pipeline.Event) {
	switch e := event.(type) {
	case pipeline.Progress:
		j.change(func() {
			old := j.all[id]
			work := slices.DeleteFunc(slices.Clone(old.Work), func(w *triptychv1alpha1.Progress) bool {
				return w.Turn == e.Turn && w.ImageIndex == int32(e.Image) && w.Unit == int32(e.Unit)
			})
			if e.Step < e.Steps {
				work = append(work, progressProto(e))
			}
			slices.SortStableFunc(work, func(a, b *triptychv1alpha1.Progress) int {
				return cmp.Or(place(a)-place(b), int(a.ImageIndex-b.ImageIndex), int(a.Unit-b.Unit))
			})
			j.all[id] = &triptychv1alpha1.JobProgress{Job: id, Model: old.Model, Images: old.Images, ImagesDone: old.ImagesDone, Work: work}
		})
	case pipeline.Image:
		if !e.Last() {
			return
		}
		j.change(func() {
			old := j.all[id]
			j.all[id] = &triptychv1alpha1.JobProgress{Job: id, Model: old.Model, Images: old.Images, ImagesDone: old.ImagesDone + 1, Work: old.Work}
		})
	}
}

// place is that of a stage in the pipeline.
func place(p *triptychv1alpha1.Progress) int {
	kind, _ := stage.ParseKind(p.Stage) // it was made from one
	return int(kind)
}

// change makes a change and tells of it.
func (j *jobs) change(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
	for wake := range j.readers {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// follow tells how far all jobs are, and again of each that has got further, until ctx ends or tell fails.
func (j *jobs) follow(ctx context.Context, tell func(*triptychv1alpha1.JobProgress) error) error {
	wake := make(chan struct{}, 1)
	wake <- struct{}{}
	j.mu.Lock()
	j.readers[wake] = true
	j.mu.Unlock()
	defer func() {
		j.mu.Lock()
		delete(j.readers, wake)
		j.mu.Unlock()
	}()
	told := map[string]*triptychv1alpha1.JobProgress{}
	for {
		select {
		case <-wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for _, p := range j.since(told) {
			if err := tell(p); err != nil {
				return err
			}
		}
		select {
		case <-time.After(jobPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// since is what was not told yet, by job.
func (j *jobs) since(told map[string]*triptychv1alpha1.JobProgress) (out []*triptychv1alpha1.JobProgress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for id := range told {
		if j.all[id] == nil {
			delete(told, id)
			out = append(out, &triptychv1alpha1.JobProgress{Job: id, Ended: true})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(j.all)) {
		if p := j.all[id]; told[id] != p {
			told[id] = p
			out = append(out, p)
		}
	}
	return out
}
