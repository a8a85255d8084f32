package residency

// settle reserves for placed requests whose room is there, in order of arrival.
func (l *ledger) settle() {
	ahead := map[*device]int64{} // bytes that earlier ones still wait for
	for _, r := range l.requests {
		if r.phase != placed {
			continue
		}
		d, missing := r.service.device, r.service.missing(r.need)
		fits := d.BudgetBytes == 0 || !d.crowded && l.others(d)+l.used(d)+ahead[d]+missing <= d.BudgetBytes
		if !fits || r.component().state == Evicting || r.retried && l.evicting(d) > 0 {
			ahead[d] += missing
			continue
		}
		l.reserve(r)
	}
}

// reserve makes a placed request's bytes its own, and loads or grants.
func (l *ledger) reserve(r *request) {
	c, was, bytes := r.component(), r.component().state, r.service.missing(r.need)
	scratch := r.need.Footprint.ScratchBytes
	waited := l.now.Sub(r.since)
	r.phase, r.since, c.prefetch = reserved, l.now, false
	if was == Absent || was == Warm {
		c.state, c.bytes = Loading, r.need.Footprint.WeightsBytes
	}
	l.mark(r.service.device)
	reserve := func(reason string, args ...any) {
		l.record(Reserve, c, r.cause, bytes, reason, args...).Took = waited
	}
	switch {
	case was == Absent || was == Warm:
		reserve("%v takes %s bytes of weights and %s of scratch", c, count(c.bytes), count(scratch))
		why := "not resident"
		if was == Warm {
			why = "kept by the host's memory"
		}
		l.load(c, r.cause, "%v is %s%s", c, why, r.need.streaming(r.service.device))
	case was == Loading:
		reserve("%v takes %s bytes of scratch; its weights are loading", c, count(scratch))
	case c.doubtful:
		reserve("%v takes %s bytes of scratch", c, count(scratch))
		l.load(c, r.cause, "an eviction of %v failed, and loading again makes sure of it", c)
	default:
		reserve("%v takes %s bytes of scratch; its weights are resident", c, count(scratch))
		l.grant(r)
	}
}

// load starts the load of a component whose bytes are reserved.
func (l *ledger) load(c *component, by cause, reason string, args ...any) {
	c.state, c.op, c.since = Loading, l.nextOp(), l.now
	l.record(Load, c, by, c.bytes, reason, args...)
	l.do(startLoad{op: c.op, at: c.service.process(), model: c.model, bytes: c.bytes, stowed: c.stowed()})
}

func (l *ledger) grant(r *request) {
	loading := l.now.Sub(r.since)
	e := l.record(Grant, r.component(), r.cause, r.need.bytes(), "%v works for the request", r.component())
	e.Took, e.Turns, e.WholeBytes = loading, l.turns(r), max(r.need.Footprint.WholeBytes, r.need.Footprint.WeightsBytes)
	l.do(grant{request: r.request, stage: r.service.id, queued: r.since.Sub(r.asked), loading: loading, edition: r.component().edition})
	r.phase, r.since = granted, l.now
	l.came(r)
}

// evict starts the eviction of an idle component, which may still be loading.
func (l *ledger) evict(c *component, by cause, class Class, reason string, args ...any) {
	was, load := c.state, c.op
	keep := was == Resident && class != OutOfMemory && class != TooLongIdle && c.stale == "" && l.keep(c)
	if keep {
		reason += "; the host's memory keeps it"
	}
	c.state, c.op, c.since, c.prefetch, c.cause = Evicting, l.nextOp(), l.now, false, by
	l.record(Evict, c, by, c.bytes, reason, args...).Class = class
	if was == Loading {
		l.do(cancelLoad{op: c.op, load: load, at: c.service.process(), model: c.model})
		return
	}
	if !c.pending {
		l.do(startEvict{op: c.op, at: c.service.process(), model: c.model, keep: keep})
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
		l.evict(c, r.cause, OutOfMemory, "the device ran out of memory while %s %v, which is tried once more without %v", doing, r.component(), c)
	}
}
