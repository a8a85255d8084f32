package residency

import (
	"fmt"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// loads and evictions that have ended.
type (
	loadDone struct {
		op      opID
		edition stage.Edition // of what was loaded, empty if the stage does not tell
	}
	evictDone struct {
		op    opID
		freed int64 // bytes, as the stage says
		warm  int64 // bytes of them in the host's memory
	}
	loadFailed struct {
		op  opID
		err error
	}
	evictFailed struct {
		op  opID
		err error
	}
)

func (in loadDone) apply(l *ledger) {
	c := l.busy(in.op, Loading)
	if c == nil {
		return
	}
	c.state, c.prefetch, c.failed, c.doubtful, c.lastUsed = Resident, false, false, false, l.now
	c.loaded, c.spent, c.op, c.stale = l.now, false, l.nextOp(), ""
	warm := c.fromWarm()
	c.warm = 0
	c.service.pace(warm).add(c.bytes, l.now.Sub(c.since))
	r, by := c.holder(), cause{}
	waits := r != nil && r.phase == reserved // else it was a prefetch
	if waits {
		by = r.cause
	}
	e := l.record(Loaded, c, by, c.bytes, "%v is resident%s", c, c.changes(in.edition))
	if e.Took = l.now.Sub(c.since); c.edition.Differs(in.edition) {
		e.Class = Changed
	} else if warm {
		e.Class = FromWarm
	}
	c.edition = in.edition
	if waits {
		l.next(r)
	}
}

func (in loadFailed) apply(l *ledger) {
	c := l.busy(in.op, Loading)
	if c == nil {
		return
	}
	r, bytes, by := c.holder(), c.bytes, cause{}
	busy := stage.ReasonOf(in.err) == stage.DeviceBusy
	waits := r != nil && r.phase == reserved // else it was a prefetch
	if waits {
		l.letGo(r)
		by = r.cause
		bytes += r.footprint().ScratchBytes
		r.phase, r.since = placed, l.now
	}
	c.state, c.bytes, c.op, c.prefetch, c.failed = Absent, 0, l.nextOp(), false, !busy
	e := l.record(Release, c, by, bytes, "the load of %v failed: %v", c, in.err)
	e.Class, e.Took = Failed, l.now.Sub(c.since)
	l.offDevice(c, Failed)
	c.service.device.crowded = c.service.device.crowded || busy
	switch {
	case !waits:
	case busy && r.refusals < maxRefusals:
		r.refusals++
		l.unseat(r)
	case outOfMemory(in.err) && !r.retried:
		l.evictIdle(r)
		r.retried = true
	default:
		l.end(r)
		l.do(refuse{r.request, in.err})
	}
	if stage.ReasonOf(in.err) == stage.RuntimeDied {
		l.died(c.service)
	}
}

func (in evictDone) apply(l *ledger) {
	c := l.busy(in.op, Evicting)
	if c == nil {
		return
	}
	bytes, by, what := c.bytes, c.cause, fmt.Sprintf("is evicted, %s bytes were freed", count(in.freed))
	if c.dropping() {
		what = "is no longer warm"
	}
	c.bytes, c.warm, c.op, c.doubtful, c.cause, c.stale = 0, min(in.warm, c.warm), l.nextOp(), false, cause{}, ""
	e := l.record(Release, c, by, bytes, "%v %s", c, what)
	e.Class, e.Took = Evicted, l.now.Sub(c.since)
	l.offDevice(c, 0)
}

func (in evictFailed) apply(l *ledger) {
	c := l.busy(in.op, Evicting)
	if c == nil {
		return
	}
	if stage.ReasonOf(in.err) == stage.RuntimeDied {
		l.died(c.service) // and has given the bytes back
		return
	}
	by := c.cause
	c.doubtful, c.cause = true, cause{}
	if c.dropping() {
		l.offDevice(c, Failed)
		return
	}
	c.state, c.op = Resident, l.nextOp()
	l.record(Evict, c, by, 0, "the eviction failed and %s bytes still count: %v", count(c.bytes), in.err).Class = Failed
}

// outOfMemory tells whether a load failed because the device has less than the ledger believes.
func outOfMemory(err error) bool {
	reason := stage.ReasonOf(err)
	return reason == stage.ModelDoesNotFit || reason == stage.EngineOOMUnplanned
}

// load starts the load of a component whose bytes are reserved.
func (l *ledger) load(c *component, by cause, reason string, args ...any) {
	c.state, c.queued, c.op, c.since = Loading, false, l.nextOp(), l.now
	l.record(Load, c, by, c.bytes, reason, args...)
	l.do(startLoad{op: c.op, at: c.service.process(), name: c.name, bytes: c.bytes, warm: c.fromWarm()})
}

// evict starts the eviction of an idle component, which may still be loading.
func (l *ledger) evict(c *component, by cause, class Class, reason string, args ...any) {
	was, load := c.state, c.op
	warm := was == Resident && class != OutOfMemory && class != TooLongIdle && c.stale == "" && l.toWarm(c)
	if warm {
		reason += "; it stays warm"
	}
	c.state, c.op, c.since, c.prefetch, c.cause = Evicting, l.nextOp(), l.now, false, by
	l.record(Evict, c, by, c.bytes, reason, args...).Class = class
	if was != Loading {
		load = 0
	}
	if !c.pending {
		l.do(startEvict{op: c.op, at: c.service.process(), name: c.name, warm: warm, load: load})
	}
}

// evictIdle evicts all that is idle on the device of a request that found it out of memory in the load or in
// its work.
func (l *ledger) evictIdle(r *request) {
	doing := "loading"
	if r.phase == granted {
		doing = "at work for"
	}
	for _, c := range l.idle(r.service.device) {
		l.evict(c, r.cause, OutOfMemory, "the device ran out of memory while %s %v, which is tried once more without %v", doing, r.need, c)
	}
}

// changes says in words how the edition of a component that was loaded differs from the last one, empty if it does not.
func (c *component) changes(now stage.Edition) string {
	switch last := c.edition; {
	case !last.Differs(now):
		return ""
	case last.Identity != "" && now.Identity != "":
		return fmt.Sprintf("; it is another than before, %s and not %s", now.Short(), last.Short())
	}
	return "; its files are others than before"
}

// discard starts to give warm weights up.
func (l *ledger) discard(c *component, class Class, reason string, args ...any) {
	c.state, c.op, c.since = Evicting, l.nextOp(), l.now
	l.record(Drop, c, cause{}, c.warm, reason, args...).Class = class
	l.do(startEvict{op: c.op, at: c.service.process(), name: c.name})
}

// offDevice is what becomes of a component that is no longer on the device: warm if it has bytes in the host's memory.
func (l *ledger) offDevice(c *component, class Class) {
	if c.state = Absent; c.warm == 0 {
		return
	}
	c.state = Warm
	l.record(Keep, c, cause{}, c.warm, "%v is warm, and resident again at once", c).Class = class
}

// pace is what loads have moved, the latest counting most.
type pace struct{ bytes, seconds float64 }

// add takes up a load.
func (p *pace) add(bytes int64, took time.Duration) {
	if took > 0 {
		p.bytes, p.seconds = p.bytes/2+float64(bytes), p.seconds/2+took.Seconds()
	}
}

// pace is that of one kind of loads.
func (s *service) pace(warm bool) *pace {
	if warm {
		return &s.fromWarm
	}
	return &s.fromFiles
}

// paces are those of both kinds of loads.
type paces struct{ fromFiles, fromWarm pace }

// keepPaces remembers how fast loads were at a service that leaves, for those who expect another one of its kind.
func (l *ledger) keepPaces(s *service) {
	if l.gone == nil {
		l.gone = map[stage.Kind]paces{}
	}
	p := l.gone[s.kind]
	if s.fromFiles.bytes > 0 {
		p.fromFiles = s.fromFiles
	}
	if s.fromWarm.bytes > 0 {
		p.fromWarm = s.fromWarm
	}
	l.gone[s.kind] = p
}

// loadPaces are how fast loads are at each kind of service.
func (l *ledger) loadPaces() (out []LoadPace) {
	for _, kind := range stage.Kinds() {
		var there paces
		for _, s := range l.services {
			if s.kind == kind {
				there.fromFiles.sum(s.fromFiles)
				there.fromWarm.sum(s.fromWarm)
			}
		}
		gone := l.gone[kind]
		out = append(out, LoadPace{kind, there.fromFiles.or(gone.fromFiles, NominalBytesPerSecond), there.fromWarm.or(gone.fromWarm, nominalWarm)})
	}
	return out
}

func (p *pace) sum(q pace) { p.bytes, p.seconds = p.bytes+q.bytes, p.seconds+q.seconds }

// or is the seconds of a byte, by another pace where this one has moved nothing, else a nominal one.
func (p pace) or(q pace, nominal float64) float64 {
	for _, m := range []pace{p, q} {
		if m.bytes > 0 {
			return m.seconds / m.bytes
		}
	}
	return 1 / nominal
}
