package host

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// shutdown is the calls that load or work, and when they are to have ended. mu is a leaf.
type shutdown struct {
	mu    sync.Mutex
	begun bool
	by    time.Time // zero where there is no such time
	calls map[*call]struct{}
}

// call is one that may be cut.
type call struct {
	shutdown *shutdown
	ctx      context.Context
	cut      context.CancelCauseFunc
	load     bool

	// Of work, for the goroutine of its observer: the last checkpoint, or the start, and when that was.
	step, steps int
	at          time.Time
}

// errCut is the cause of a call's context that was cut.
var errCut = errors.New("cut at the end of the service")

// begin counts a call until done.
func (s *shutdown) begin(ctx context.Context, load bool) (c *call, done func()) {
	c = &call{shutdown: s, load: load}
	c.ctx, c.cut = context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[*call]struct{}{}
	}
	s.calls[c] = struct{}{}
	return c, func() {
		s.mu.Lock()
		delete(s.calls, c)
		s.mu.Unlock()
		c.cut(context.Canceled)
	}
}

// start has everything end by then.
func (s *shutdown) start(by time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun, s.by = true, by
}

// hasBegun reports whether the stage shuts down, and by when everything is to have ended.
func (s *shutdown) hasBegun() (begun bool, by time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun, s.by
}

// cut ends loads, or whatever runs.
func (s *shutdown) cut(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.calls {
		if all || c.load {
			c.cut(errCut)
		}
	}
}

// observed is an observer of work that is cut right behind a checkpoint if the stage shuts down and the work would not reach its
// next one, or its end, in time.
func (c *call) observed(req stage.WorkRequest, o stage.Observer) stage.Observer {
	if req.CheckpointEveryNSteps == 0 || o.Checkpoint == nil {
		return o
	}
	c.at = time.Now()
	if req.Resume != nil {
		c.step = req.Resume.Step
	}
	ready, checkpoint := o.Ready, o.Checkpoint
	o.Ready = func(steps int) {
		c.steps, c.at = steps, time.Now()
		if ready != nil {
			ready(steps)
		}
	}
	o.Checkpoint = func(p stage.Checkpoint) {
		checkpoint(p)
		now := time.Now()
		_, by := c.shutdown.hasBegun()
		if next := min(req.CheckpointEveryNSteps, c.steps-p.Step); !by.IsZero() && !reaches(now, by, now.Sub(c.at), p.Step-c.step, next) {
			c.cut(errCut)
		}
		c.at, c.step = now, p.Step
	}
	return o
}

// paceFactor is by how much steps may slow down and still be reached that were thought to be.
const paceFactor = 2

// reaches tells whether so many more steps are done by a time, if the last ones took so long.
func reaches(now, by time.Time, took time.Duration, steps, more int) bool {
	each := took / time.Duration(max(1, steps))
	return now.Add(paceFactor * each * time.Duration(more)).Before(by)
}

// told is the error of a call for its caller: of one that was cut, StageDraining.
func (h *Host) told(c *call, err error) error {
	if err != nil && context.Cause(c.ctx) == errCut { //nolint:errorlint // a sentinel that nobody wraps
		return stage.Errorf(stage.StageDraining, "the %v shuts down and has cut the work", h.options.Kind).With("stage", h.options.Kind.String())
	}
	return err
}

// Shut is Drain for good. Loads are cut at once, and work behind the last checkpoint that it reaches before ctx's deadline. What
// still runs at the end of ctx is cut then and the child ended; the error is ctx's.
func (h *Host) Shut(ctx context.Context) error {
	by, _ := ctx.Deadline()
	h.shutdown.start(by)
	h.refuse()
	h.shutdown.cut(false)
	err := h.ended(ctx, stage.Resident.Drain)
	if err != nil {
		h.shutdown.cut(true)
		h.End()
	}
	return err
}
