package simulate

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency"
)

// event is something that will happen.
type event struct {
	at      time.Time
	order   int // among those of one time
	do      func()
	dropped bool
}

// queue is a heap of events, the next one first.
type queue []*event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return cmp.Or(q[i].at.Compare(q[j].at), q[i].order-q[j].order) < 0
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(e any)   { *q = append(*q, e.(*event)) }

func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	*q = (*q)[:last]
	return e
}

// after has do happen in so long.
func (s *simulation) after(d time.Duration, do func()) *event {
	s.events++
	e := &event{at: s.now.Add(d), order: s.events, do: do}
	heap.Push(&s.queue, e)
	return e
}

// work begins a load or an eviction.
func (s *simulation) work(w residency.Work) {
	if w.Evict {
		if load, ok := s.loads[w.Cancels]; ok {
			load.end.dropped = true
			s.loaded(w.Cancels)
		}
		s.after(seconds(s.options.EvictSeconds), func() { s.heed(s.machine.Done(s.now, w)) })
		return
	}
	var took time.Duration
	if w.Warm {
		s.result.FromWarm++
		s.result.FromWarmOf[w.Component]++
	} else {
		s.result.Loads++
		s.result.LoadsOf[w.Component]++
		took = s.options.LoadTime(w.Bytes)
	}
	end := s.after(took, func() {
		s.loaded(w.ID)
		s.heed(s.machine.Done(s.now, w))
	})
	s.loads[w.ID] = &loading{since: s.now, end: end}
}

// loading is a load under way.
type loading struct {
	since time.Time
	end   *event
}

// loaded ends a load, and counts its time.
func (s *simulation) loaded(id uint64) {
	s.reload += s.now.Sub(s.loads[id].since)
	delete(s.loads, id)
}

// count adds an event up.
func (s *simulation) count(e residency.Event) {
	switch e.Action {
	case residency.Reserve, residency.Prefetch:
		if t := s.turns[e.Request]; t != nil {
			t.reserved = s.now
		}
		s.used += e.Bytes
		s.result.PeakBytes = max(s.result.PeakBytes, s.used)
		if s.options.BudgetBytes > 0 && s.used > s.options.BudgetBytes {
			s.result.Violations++
		}
	case residency.Release, residency.Lost:
		s.used -= e.Bytes
	}
}

// finish sums up.
func (s *simulation) finish() (Result, error) {
	r := s.result
	r.Done = len(s.latency)
	if r.Done+r.Refused != len(s.trace.Jobs) {
		return r, fmt.Errorf("of %d jobs %d are done and %d refused, and nothing happens any more", len(s.trace.Jobs), r.Done, r.Refused)
	}
	r.ReloadSeconds, r.WaitingSeconds = s.reload.Seconds(), s.waited.Seconds()
	slices.Sort(s.latency)
	r.P50Seconds, r.P95Seconds, r.P99Seconds = s.percentile(50), s.percentile(95), s.percentile(99)
	return r, nil
}

// percentile is the latency that p of 100 jobs do not exceed, in seconds; 0 if none is done.
func (s *simulation) percentile(p float64) float64 {
	if len(s.latency) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(s.latency))))
	return s.latency[max(rank, 1)-1].Seconds()
}
