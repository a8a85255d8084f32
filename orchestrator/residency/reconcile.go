package residency

import (
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// holds: what a stage says that it holds, asked for when the last load or eviction was since. It is what tells of weights
// that nobody here has in view: a load that was given up because its runtime had ended may have gone to the next one, and
// one that began there is lost with the news that the one before has ended.
type holds struct {
	stage          StageID
	resident, warm []stage.ResidentModel
	since          opID
}

func (in holds) apply(l *ledger) {
	s := l.service(in.stage)
	if s == nil {
		return
	}
	l.found(s, in.resident, in.warm, in.since, "%v is resident, though its load was given up")
	for _, c := range s.components {
		if c.state == Warm && c.away(in.since) && !slices.ContainsFunc(in.warm, func(m stage.ResidentModel) bool { return m.Model == c.model }) {
			c.state, c.kept = Absent, 0
			l.record(Lost, c, cause{}, 0, "the host's memory does not keep %v any more", c)
		}
	}
}

// found takes up what a stage holds that was off the device, as far as was known here, when it was asked.
func (l *ledger) found(s *service, resident, warm []stage.ResidentModel, since opID, reason string) {
	for _, m := range resident {
		c := s.component(m.Model)
		if !c.away(since) {
			continue
		}
		c.state, c.bytes, c.kept, c.lastUsed, c.loaded = Resident, m.WeightsBytes, 0, l.now, l.now
		l.mark(s.device)
		l.record(Reserve, c, cause{}, c.bytes, reason, c).Class = Found
	}
	for _, m := range warm {
		if c := s.component(m.Model); c.away(since) && c.state == Absent {
			c.kept, c.lastUsed = m.WeightsBytes, l.now
			l.settled(c, Found)
		}
	}
}

// away tells whether c was off the device when a stage was asked, and is so still.
func (c *component) away(since opID) bool {
	return c.op <= since && (c.state == Absent || c.state == Warm)
}

// Moment orders what a stage says after what was decided.
type Moment uint64

// Now is the present moment, for Measure.
func (k *Keeper) Now() (m Moment) {
	k.do(func() { m = Moment(k.ledger.lastOp) })
	return m
}

// Measure tells what a stage, which has joined, said when it was asked at a moment: of its device's budget, of other processes
// there, and of what it holds.
func (k *Keeper) Measure(id StageID, info stage.Info, asked Moment) {
	k.do(func() {
		k.step(measured{id, shareOf(info)})
		k.step(holds{id, info.Resident, info.Warm, opID(asked)})
	})
}
