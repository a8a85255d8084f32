package fleet

import (
	"context"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Need is what an orchestrator must have to be ready.
type Need struct {
	Replicas map[stage.Kind]int // services of a kind that get work; of a kind that is not told, 1
	Patience time.Duration      // how long some of them may be missing again
}

// Follow tells whether the orchestrator is ready, at first and when that changes, until ctx ends: it does not stand by, and has
// what it needs. An heir is ready with services that it will have.
func (f *Fleet) Follow(ctx context.Context, n Need, tell func(ready bool)) {
	enough := map[stage.Kind]time.Time{} // when it had, since it stands by no more
	timer := time.NewTimer(0)            // for the end of patience
	defer timer.Stop()
	for told := -1; ; {
		news := f.next() // taken before the look, so that none is missed
		now, ready, counts := time.Now(), 1, f.working()
		if f.Standing() == Standby {
			clear(enough)
			ready = 0
		}
		timer.Stop()
		for _, kind := range stage.Kinds() {
			least, given := n.Replicas[kind]
			if !given {
				least = 1
			}
			if counts[kind] >= least {
				enough[kind] = now
				continue
			}
			since, had := enough[kind]
			if left := n.Patience - now.Sub(since); had && left > 0 {
				timer.Reset(left) // any kind's will do: all are looked at then
			} else {
				ready = 0
			}
		}
		if ready != told {
			told = ready
			tell(ready == 1)
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-timer.C:
		}
	}
}

// working counts the services of each kind that get work, or will from an heir.
func (f *Fleet) working() map[stage.Kind]int {
	counts, heir := map[stage.Kind]int{}, f.Standing() == Heir
	for _, m := range f.all() {
		if _, up := m.last(); up || heir && f.standings.of(m).heritable() {
			counts[m.kind]++
		}
	}
	return counts
}
