// Package scale tells how much work waits for each kind of stage, in seconds: what an autoscaler sizes a stage by.
//
// It keeps no record of its own of who waits: that is the keeper's snapshot. What it remembers is how long work took.
//
// The package may import orchestrator/residency and stage; it has no goroutine and no clock.
package scale

import (
	"cmp"
	"slices"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// Unplanned is a request that has begun and that the keeper has not heard of: a stage has yet to say what it takes there.
type Unplanned struct {
	Job   residency.JobID
	Asked string // the model as the request names it, of which there may be none; empty is any
	// Model is that model, as services know it; empty while none does.
	Model string
	// Needs are its turns, their footprints of weights alone; nil while the model is not known.
	Needs []residency.Need
}

// Backlog is the work there is.
type Backlog struct {
	turns []turn
	loads []load
}

// turn is work of a job that waits for a kind of stage, or is at work there; alike ones are one.
type turn struct {
	kind    stage.Kind
	model   string // empty while it is not known
	asked   string // by the request, where the model is not known
	job     residency.JobID
	times   int
	seconds float64 // of computing, that are left of all
	waits   bool    // for a stage, by itself; else it is announced, or at work
	works   bool
}

// load is weights that no service of a kind holds and that turns need.
type load struct {
	kind    stage.Kind
	model   string
	seconds float64
}

// Of is the backlog at the moment of a snapshot. Requests that the snapshot knows by their job are not unplanned.
func Of(s residency.Snapshot, unplanned []Unplanned, paces *Paces) (b Backlog) {
	absent, running := lackingOf(s), underWayIn(s)
	known := map[residency.JobID]bool{}
	for _, v := range s.Stages {
		if v.Leased {
			known[v.Job] = true
			left := paces.left(v, s.Time, running)
			b.turns = append(b.turns, turn{kind: v.Kind, model: modelOf(v.Work, v.Components), job: v.Job, times: 1, seconds: left, works: true})
		}
	}
	add := func(job residency.JobID, n residency.Need, times int, waits bool) {
		model := modelOf(n.Work, n.Components)
		b.turns = append(b.turns, turn{kind: n.Kind, model: model, job: job, times: times, seconds: float64(times) * paces.expect(n.Kind, n.Work, running), waits: waits})
		if seconds := absent.take(n, model); seconds > 0 {
			b.loads = append(b.loads, load{n.Kind, model, seconds})
		}
	}
	for _, w := range s.Waiting {
		known[w.Job] = true
		add(w.Job, w.Need, 1, true)
	}
	for _, a := range s.Announced {
		known[a.Job] = true
		add(a.Job, a.Need, a.Times, false)
	}
	for _, u := range unplanned {
		switch {
		case known[u.Job]:
		case u.Needs == nil:
			for _, kind := range stage.Kinds() {
				seconds := paces.expect(kind, residency.Workload{Model: u.Model, Evaluations: 1}, running)
				b.turns = append(b.turns, turn{kind: kind, model: u.Model, asked: u.Asked, job: u.Job, times: 1, seconds: seconds, waits: true})
			}
		default:
			for _, n := range u.Needs {
				add(u.Job, n, 1, false)
			}
		}
	}
	return b
}

// modelOf is the model that work was asked for.
func modelOf(w residency.Workload, components []string) string {
	if w.Model != "" || len(components) == 0 {
		return w.Model
	}
	return stage.ModelOf(components[0])
}

// Sum is the work of a kind for a model.
type Sum struct {
	Kind  stage.Kind
	Model string // empty while it is not known
	// Requests are turns that wait, those that jobs announced included; what is at work is not among them.
	Requests int
	Seconds  float64 // of computing and loading: of all turns, those at work included
}

// Sums are the work by kind and model, in that order; of those that have any.
func (b Backlog) Sums() (out []Sum) {
	at := func(kind stage.Kind, model string) *Sum {
		i, found := slices.BinarySearchFunc(out, Sum{Kind: kind, Model: model}, func(a, b Sum) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Model, b.Model))
		})
		if !found {
			out = slices.Insert(out, i, Sum{Kind: kind, Model: model})
		}
		return &out[i]
	}
	for _, t := range b.turns {
		s := at(t.kind, t.model)
		s.Seconds += t.seconds
		if !t.works {
			s.Requests += t.times
		}
	}
	for _, l := range b.loads {
		at(l.kind, l.model).Seconds += l.seconds
	}
	return out
}

// Demand is what a scaler makes of the work of a kind.
type Demand struct {
	Active  bool    // there is work, waiting, announced or under way
	Seconds float64 // for all replicas together; replicas are meant to be this by the target, rounded up
}

// Demand is that of a target. Turns of one job follow each other, so that a job counts for no more replicas than have
// something of it to do at once.
func (b Backlog) Demand(t Target) (d Demand) {
	type share struct {
		seconds      float64
		waits, works int
	}
	var jobs []residency.JobID // in order, so that the sum does not depend on a map's
	shares := map[residency.JobID]*share{}
	for _, turn := range b.turns {
		if turn.kind != t.Stage || !t.wants(turn.model, turn.asked) {
			continue
		}
		s := shares[turn.job]
		if s == nil {
			s = &share{}
			shares[turn.job], jobs = s, append(jobs, turn.job)
		}
		s.seconds += turn.seconds
		if turn.waits {
			s.waits++
		}
		if turn.works {
			s.works++
		}
	}
	most := 0.
	for _, job := range jobs {
		s := shares[job]
		atOnce := float64(max(1, s.waits+s.works)) * t.Seconds
		d.Seconds += min(s.seconds, atOnce)
		most += atOnce
	}
	for _, l := range b.loads {
		if l.kind == t.Stage && t.wants(l.model, "") {
			d.Seconds += l.seconds
		}
	}
	d.Active, d.Seconds = len(jobs) > 0, min(d.Seconds, most)
	return d
}
