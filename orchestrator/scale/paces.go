package scale

import (
	"slices"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// NominalSeconds is how long an evaluation is taken to last where none like it was measured. It is short: a replica too few is there
// after the first turn, and one too many stays for minutes.
const NominalSeconds = 0.1

// The bounds of what is remembered, and of what is believed.
const (
	maxPaces   = 512
	forgetting = 24 * time.Hour
	weight     = 0.2 // of the latest measurement in the mean
	maxSeconds = 1e9 // of one turn
)

// Paces are how many seconds evaluations took. The zero value has measured nothing. It must not be used from several goroutines at
// once.
type Paces struct {
	means map[class]*mean
}

// class is work that is expected to take alike long for an evaluation.
type class struct {
	kind        stage.Kind
	model, turn string // turn is empty of all turns
	shape       string // empty of all shapes
}

// classes are those of work, the narrowest first.
func classes(kind stage.Kind, w residency.Workload) []class {
	return slices.Compact([]class{{kind, w.Model, w.Turn, w.Shape}, {kind, w.Model, w.Turn, ""}, {kind, w.Model, "", ""}})
}

// mean is an exponential one.
type mean struct {
	seconds float64
	last    time.Time
}

// Learn takes up how long work took, if it is that what an event tells. What nobody has done for a day is forgotten.
func (p *Paces) Learn(e residency.Event) {
	w := e.Work
	if e.Class != residency.WorkDone || w.Evaluations <= 0 || e.Took <= 0 {
		return
	}
	if p.means == nil {
		p.means = map[class]*mean{}
	}
	took := e.Took.Seconds() / float64(w.Evaluations)
	w.Model = modelOf(w, e.Components)
	for _, c := range classes(e.Kind, w) {
		m := p.means[c]
		if m == nil {
			p.forget(e.Time)
			m = &mean{seconds: took}
			p.means[c] = m
		}
		m.seconds += weight * (took - m.seconds)
		m.last = e.Time
	}
}

// forget makes room for one more.
func (p *Paces) forget(now time.Time) {
	var oldest class
	for c, m := range p.means {
		if now.Sub(m.last) > forgetting {
			delete(p.means, c)
		}
	}
	if len(p.means) < maxPaces {
		return
	}
	for c, m := range p.means {
		if o := p.means[oldest]; o == nil || m.last.Before(o.last) {
			oldest = c
		}
	}
	delete(p.means, oldest)
}

// expect is how many seconds work of a kind takes to compute: as was measured for its shape, else for other shapes of the turn, else
// for other turns of the model, else a nominal time. Where nothing was measured yet, what is under way now counts.
func (p *Paces) expect(kind stage.Kind, w residency.Workload, now underWay) float64 {
	each := NominalSeconds
	for _, c := range classes(kind, w) {
		m, known := p.means[c]
		d, seen := now[c]
		if known {
			each = m.seconds
			break
		}
		if seen {
			each = d.seconds / float64(d.evaluations)
			break
		}
	}
	return min(each*float64(max(1, w.Evaluations)), maxSeconds)
}

// underWay is how long evaluations have taken so far of work that has not ended: what there is to go by while the first turn of its
// class lasts.
type underWay map[class]struct {
	seconds     float64
	evaluations int
}

func underWayIn(s residency.Snapshot) underWay {
	out := underWay{}
	for _, v := range s.Stages {
		took, n := s.Time.Sub(v.Since).Seconds(), v.Done-v.First
		if !v.Leased || took <= 0 || n <= 0 {
			continue
		}
		w := v.Work
		w.Model = modelOf(w, v.Components)
		for _, c := range classes(v.Kind, w) {
			d := out[c]
			d.seconds, d.evaluations = d.seconds+took, d.evaluations+n
			out[c] = d
		}
	}
	return out
}

// left is how many seconds of computing are left where a stage is at work: of the evaluations to come where they are counted, else of
// the time that is expected for all.
func (p *Paces) left(v residency.StageUse, now time.Time, others underWay) float64 {
	w := v.Work
	w.Model = modelOf(w, v.Components)
	if v.Total > 0 {
		if w.Evaluations = v.Total - v.Done; w.Evaluations <= 0 {
			return 0
		}
		return p.expect(v.Kind, w, others)
	}
	return max(0, p.expect(v.Kind, w, others)-max(0, now.Sub(v.Since).Seconds()))
}
