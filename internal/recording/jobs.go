package recording

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// Jobs puts the jobs of a recording together again: when each arrived, and its turns with what they took. The zero
// value has seen nothing. It keeps what a trace does, and the jobs that are no part of it by name.
type Jobs struct {
	found   Summary
	begun   time.Time // the first snapshot
	last    time.Time
	jobs    map[string]*job
	arrived []*job             // in the order they were heard of
	open    map[uint64]granted // requests at work
	held    map[held]int64     // bytes of weights, as last heard of
	grants  int
}

// held is a component at a service.
type held struct{ service, component string }

// job is what was heard of a job.
type job struct {
	line      int // of its first message
	asked     time.Time
	seen      bool    // a turn of it was granted in the recording
	early     bool    // its first turn was not
	announced int     // turns in all
	taken     []taken // that came to their end
	gone      bool    // given up, unless it is heard of again
	lost      bool    // decisions were lost before its end
	whole     bool    // all its turns were taken
}

// taken is a turn that came to its end.
type taken struct {
	request uint64 // they are counted as they are asked for
	simulate.Turn
}

// granted is a request at work.
type granted struct {
	job          *job
	turn         simulate.Turn // without its scratch and seconds
	bytes, whole int64         // weights and scratch; all weights
	preview      bool
}

// Add takes up a message of Read. INVALID_FIELD.
func (j *Jobs) Add(line int, news *triptychv1alpha1.WatchResidencyResponse) error {
	j.found.Messages++
	if s := news.GetSnapshot(); s != nil {
		return j.snapshot(line, s)
	}
	if d := news.GetDecision(); d != nil {
		return j.decision(line, d)
	}
	return nil
}

// snapshot begins, or begins again after decisions were lost: what is not over then is not known whole.
func (j *Jobs) snapshot(line int, s *triptychv1alpha1.ResidencySnapshot) error {
	now := s.GetTime().AsTime()
	if j.begun.IsZero() {
		j.begun, j.jobs, j.held = now, map[string]*job{}, map[held]int64{}
		for _, c := range s.GetComponents() {
			if c.GetState() != triptychv1alpha1.ComponentUse_STATE_WARM {
				j.found.ResidentParts++
				j.found.ResidentBytes += c.GetWeightsBytes()
			}
		}
	}
	j.last, j.open = now, map[uint64]granted{}
	j.found.Dropped = s.GetDroppedDecisions()
	for _, c := range s.GetComponents() {
		j.held[held{c.GetService(), c.GetComponent()}] = c.GetWeightsBytes()
	}
	for _, k := range j.arrived {
		k.lost = !k.whole
	}
	devices := map[string]bool{}
	for _, d := range s.GetDevices() {
		devices[d.GetDevice()] = true
		j.found.BudgetBytes = max(j.found.BudgetBytes, d.GetBudgetBytes())
	}
	j.found.Devices, j.found.Services = max(j.found.Devices, len(devices)), max(j.found.Services, len(s.GetServices()))
	for _, v := range s.GetServices() {
		if v.GetWorking() {
			k, err := j.job(line, v.GetJob())
			if err != nil {
				return err
			}
			if k != nil && !k.seen {
				k.cut(j.found.Dropped)
			}
		}
	}
	for _, w := range s.GetWaiting() {
		k, err := j.job(line, w.GetJob())
		if err != nil {
			return err
		}
		if k != nil && k.asked.IsZero() {
			k.asked = w.GetSince().AsTime()
		}
	}
	return nil
}

// job is the one of that name, or a new one; nil if it has none.
func (j *Jobs) job(line int, id string) (*job, error) {
	if id == "" {
		return nil, nil //nolint:nilnil // who asks without a job is nobody's
	}
	k := j.jobs[id]
	if k == nil {
		if len(j.arrived) == simulate.MaxJobs {
			return nil, invalid(line, "decision.job", id, fmt.Sprintf("at most %d jobs", simulate.MaxJobs))
		}
		k = &job{line: line}
		j.jobs[id] = k
		j.arrived = append(j.arrived, k)
	}
	return k, nil
}

// cut marks a job whose first turn was not heard of.
func (k *job) cut(dropped int64) {
	k.early, k.lost = true, dropped > 0
}

// since takes the beginning of what an event ends for the arrival, unless that is known: of a reserve, the asking.
func (k *job) since(e *triptychv1alpha1.ResidencyEvent) {
	if k.asked.IsZero() {
		k.asked = e.GetTime().AsTime().Add(-e.GetTook().AsDuration())
	}
}

// decision counts, and follows the request that it is about.
func (j *Jobs) decision(line int, d *triptychv1alpha1.ResidencyDecision) error {
	e := d.GetEvent()
	j.last = e.GetTime().AsTime()
	j.found.count(e)
	if a := e.GetAction(); a == triptychv1alpha1.ResidencyEvent_ACTION_LOADED || a == triptychv1alpha1.ResidencyEvent_ACTION_RESERVE && len(e.GetComponents()) == 0 {
		j.held[held{d.GetService(), e.GetComponent()}] = e.GetBytes()
	}
	if d.GetRequest() == 0 { // of a prefetch, say, which is not what the job does
		return nil
	}
	k, err := j.job(line, d.GetJob())
	if k == nil {
		return err
	}
	switch e.GetAction() {
	case triptychv1alpha1.ResidencyEvent_ACTION_RESERVE:
		k.since(e)
		k.gone = false
	case triptychv1alpha1.ResidencyEvent_ACTION_WAIT:
		k.gone = false
	case triptychv1alpha1.ResidencyEvent_ACTION_GRANT:
		return j.grant(line, d, k)
	case triptychv1alpha1.ResidencyEvent_ACTION_WITHDRAW, triptychv1alpha1.ResidencyEvent_ACTION_REFUSE:
		k.gone = true
	case triptychv1alpha1.ResidencyEvent_ACTION_LOST:
		if _, ok := j.open[d.GetRequest()]; ok {
			delete(j.open, d.GetRequest())
			j.found.FailedTurns++
		}
		k.gone = true
	case triptychv1alpha1.ResidencyEvent_ACTION_RELEASE:
		switch e.GetClass() {
		case triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE:
			return j.release(line, d)
		case triptychv1alpha1.ResidencyEvent_CLASS_WORK_WITHDRAWN, triptychv1alpha1.ResidencyEvent_CLASS_FAILED:
			k.gone = true
		}
	}
	return nil
}

func (j *Jobs) grant(line int, d *triptychv1alpha1.ResidencyDecision, k *job) error {
	e := d.GetEvent()
	if _, ok := stage.ParseKind(e.GetStage()); !ok {
		return invalid(line, "decision.event.stage", e.GetStage(), "encoder, denoiser or decoder")
	}
	if j.grants++; j.grants > simulate.MaxTurns {
		return invalid(line, "decision", j.grants, fmt.Sprintf("at most %d turns of all jobs", simulate.MaxTurns))
	}
	k.since(e) // of a job whose reserve was not heard
	k.gone = false
	if e.GetTurns() > 0 {
		if !k.seen && e.GetTaken() > 0 {
			k.cut(j.found.Dropped)
		}
		k.seen = true
		k.announced = max(k.announced, int(e.GetTaken())+int(e.GetTurns()))
	}
	t := simulate.Turn{Stage: e.GetStage()}
	for _, name := range e.GetComponents() {
		t.Components = append(t.Components, simulate.Weights{Name: name, Bytes: j.held[held{d.GetService(), name}]})
	}
	if len(t.Components) == 0 { // before components had names
		t.Model = e.GetModel()
	}
	j.open[d.GetRequest()] = granted{k, t, e.GetBytes(), e.GetWholeBytes(), e.GetTurns() == 0}
	return nil
}

// release ends a turn. Whose grant was not heard is of a job that is not known whole.
func (j *Jobs) release(line int, d *triptychv1alpha1.ResidencyDecision) error {
	g, ok := j.open[d.GetRequest()]
	if !ok {
		return nil
	}
	delete(j.open, d.GetRequest())
	e, k := d.GetEvent(), g.job
	switch {
	case g.preview:
		j.found.Previews++
		return nil
	case e.GetUnfinished():
		j.found.FailedTurns++
		k.gone = true
		return nil
	case e.GetBytes() > g.bytes:
		return invalid(line, "decision.event.bytes", e.GetBytes(), fmt.Sprintf("scratch of at most the %d bytes that the request was granted", g.bytes))
	}
	weights := g.bytes - e.GetBytes()
	if weights < g.whole {
		j.found.StreamedTurns++
	}
	switch g.turn.ScratchBytes, g.turn.Seconds = e.GetBytes(), e.GetTook().AsDuration().Seconds(); len(g.turn.Components) {
	case 0:
		g.turn.WeightsBytes = weights
	case 1:
		g.turn.Components[0].Bytes = weights
	}
	k.taken = append(k.taken, taken{d.GetRequest(), g.turn})
	k.whole = !k.early && !k.lost && len(k.taken) == k.announced
	return nil
}

// turns are those that were taken, in the order in which they were asked for.
func (k *job) turns() (turns []simulate.Turn) {
	for _, t := range slices.SortedFunc(slices.Values(k.taken), func(a, b taken) int { return cmp.Compare(a.request, b.request) }) {
		turns = append(turns, t.Turn)
	}
	return turns
}

// Trace is the trace of all jobs that are known from their arrival to their last turn, and what else there was. INVALID_FIELD.
func (j *Jobs) Trace() (simulate.Trace, Summary, error) {
	var (
		t     simulate.Trace
		first time.Time
	)
	s := j.found
	s.Jobs, s.Seconds = len(j.arrived), j.last.Sub(j.begun).Seconds()
	for _, k := range j.arrived {
		if k.whole && (first.IsZero() || k.asked.Before(first)) {
			first = k.asked
		}
	}
	for _, k := range j.arrived {
		switch {
		case k.whole:
			turns := k.turns()
			if err := t.Add(fmt.Sprintf("line %d", k.line), simulate.Job{AtSeconds: k.asked.Sub(first).Seconds(), Turns: turns}); err != nil {
				return simulate.Trace{}, s, err
			}
			s.Replayed, s.Turns = s.Replayed+1, s.Turns+len(turns)
		case k.lost:
			s.CutByLoss++
		case k.early:
			s.CutAtBegin++
		case k.gone:
			s.GivenUp++
		default:
			s.CutAtEnd++
		}
	}
	t, err := t.Complete()
	return t, s, err
}
