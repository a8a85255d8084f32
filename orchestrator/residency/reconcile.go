package residency

import (
	"slices"

	"github.com/triptych-serving/triptych/stage"
)

// holds: what a stage says that it holds, asked for when the last load or eviction was since. What was resident or warm then,
// and is said not to be, is lost; what is said to be and was not known is found. What has been loaded or evicted since, or
// is being, is not touched: that answers for itself.
//
// Nothing is to be found or missed while a stage serves one orchestrator over one connection. It is when the answer of a
// load or eviction was lost on the way, or somebody else was there in between.
type holds struct {
	stage          StageID
	resident, warm []stage.ResidentModel
	since          opID
	editions       map[string]stage.Edition // by model
}

func (in holds) apply(l *ledger) {
	s := l.service(in.stage)
	if s == nil {
		return
	}
	for _, c := range s.components {
		named := func(m stage.ResidentModel) bool { return m.Model == c.model }
		there := slices.ContainsFunc(in.resident, named) || c.state == Warm && slices.ContainsFunc(in.warm, named)
		if c.op <= in.since && (c.state == Resident || c.state == Warm) && !there {
			l.miss(c, "its stage does not hold it")
		}
	}
	away := func(c *component) bool { return c.op <= in.since && (c.state == Absent || c.state == Warm) }
	for _, m := range in.resident {
		if c := s.component(m.Model); away(c) {
			c.state, c.bytes, c.kept, c.lastUsed, c.loaded = Resident, m.WeightsBytes, 0, l.now, l.now
			l.mark(s.device)
			l.record(Reserve, c, cause{}, c.bytes, "%v is resident, as its stage says", c).Class = Found
		}
	}
	for _, m := range in.warm {
		if c := s.component(m.Model); away(c) && c.state == Absent {
			c.kept, c.lastUsed = m.WeightsBytes, l.now
			l.settled(c, Found)
		}
	}
	for _, c := range s.components { // streamed weights are known once they have been read
		if e := in.editions[c.model]; c.op <= in.since && c.state != Loading && (e.Stamp == c.edition.Stamp || c.edition.Stamp == "") && e.Identity != "" {
			c.edition = e
		}
	}
	for _, m := range slices.Concat(in.resident, in.warm) {
		if c := s.component(m.Model); m.Stale != "" && c.op <= in.since && (c.state == Resident || c.state == Warm) {
			c.stale, c.staleFor = m.Stale, cause{}
		}
	}
}

// Moment orders what a stage says after what was decided.
type Moment uint64

// Now is the present moment, for Join and Measure.
func (k *Keeper) Now() (m Moment) {
	k.do(func() { m = Moment(k.ledger.lastOp) })
	return m
}

// Measure tells what a stage, which has joined, said when it was asked at a moment: of its runtime process, of its device's
// budget, of other processes there, and of what it holds. A silent one has answered with that.
func (k *Keeper) Measure(id StageID, info stage.Info, asked Moment) {
	k.tell(news{seen{id, info.Generation}, measured{id, shareOf(info)}, holdsOf(id, info, asked), silenced{id, false}})
}

func holdsOf(id StageID, info stage.Info, asked Moment) holds {
	in := holds{id, info.Resident, info.Warm, opID(asked), map[string]stage.Edition{}}
	for _, m := range info.Models {
		in.editions[m.Model] = m.Edition
	}
	return in
}
