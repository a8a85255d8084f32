package host

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// infoPatience is how long Info waits for a child that is being started again.
const infoPatience = 5 * time.Second

// Info is the child's, with the number of the present generation. If the child dies it asks the next
// one, for a while; then it is RuntimeDied. A child that lives and does not answer for as long, and so may hold
// what it held, is DeadlineExceeded.
func (h *Host) Info(ctx context.Context) (stage.Info, error) {
	patience, cancel := context.WithTimeout(ctx, infoPatience)
	defer cancel()
	for {
		info, err := forward(patience, h, upkeep, func(g *generation) (stage.Info, error) {
			info, err := g.child.Stage().Info(patience)
			info.Generation, info.Instance = g.number, h.instance
			return info, err
		})
		switch {
		case err == nil:
			h.mu.Lock()
			info.Draining = info.Draining || h.draining
			h.remember(info.Components)
			h.mu.Unlock()
			return info, nil
		case ctx.Err() == nil && patience.Err() != nil && h.PID() == 0:
			died := h.died("has ended, and no other has started yet")
			died.Cause = err
			return stage.Info{}, died
		case stage.ReasonOf(err) != stage.RuntimeDied || h.closing.Err() != nil:
			return stage.Info{}, err
		}
	}
}

// remember fills in the digests and identities that a child before this one has found out of the same files. h.mu is held.
func (h *Host) remember(components []stage.Component) {
	for i := range components {
		c := &components[i]
		if last := h.digests[c.Name]; c.Stamp != "" && last.Stamp == c.Stamp {
			c.Digest, c.Identity = cmp.Or(c.Digest, last.Digest), cmp.Or(c.Identity, last.Identity)
		}
		if c.Digest != "" || c.Identity != "" {
			h.digests[c.Name] = *c
		}
	}
}

// Plan is the child's.
func (h *Host) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	return forward(ctx, h, upkeep, func(g *generation) (stage.Footprint, error) {
		return g.child.Stage().Plan(ctx, req)
	})
}

// Load loads into the present child, if that is still the one it is for; the next one has to be loaded again. A stage that shuts
// down cuts it: the work that it is for would be refused.
func (h *Host) Load(ctx context.Context, req stage.LoadRequest, progress func(loadedBytes, totalBytes int64)) error {
	defer h.underway.begin(req.Component)()
	c, done := h.shutdown.begin(ctx, true)
	defer done()
	_, err := forward(c.ctx, h, work.within(req.Generation), func(g *generation) (struct{}, error) {
		req.Generation = 0 // a child counts none
		return struct{}{}, g.child.Stage().Load(c.ctx, req, progress)
	})
	return h.told(c, err)
}

// Evict is the child's, behind what was begun before.
func (h *Host) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	if err := h.underway.settle(ctx, req.Component); err != nil {
		return stage.Evicted{}, err
	}
	return forward(ctx, h, upkeep.within(req.Generation), func(g *generation) (stage.Evicted, error) {
		req.Generation = 0
		return g.child.Stage().Evict(ctx, req)
	})
}

// Work is the child's. It is not done again when the child dies: what the observer has seen is for the caller to resume from.
// A stage that shuts down cuts it, behind a checkpoint if it has any: StageDraining.
func (h *Host) Work(ctx context.Context, req stage.WorkRequest, observer stage.Observer) (stage.Result, error) {
	defer h.underway.begin(req.Components...)()
	c, done := h.shutdown.begin(ctx, false)
	defer done()
	observer = c.observed(req, observer)
	result, err := forward(c.ctx, h, work, func(g *generation) (stage.Result, error) {
		return g.child.Stage().Work(c.ctx, req, observer)
	})
	return result, h.told(c, err)
}

// Drain holds for this child and all that come after it, until Undrain. A child that dies runs no more work.
func (h *Host) Drain(ctx context.Context) error {
	h.refuse()
	return h.ended(ctx, stage.Resident.Drain)
}

// refuse lets no new work through.
func (h *Host) refuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.draining {
		h.draining = true
		close(h.drain)
	}
}

// Undrain takes new work again, unless the service shuts down: StageDraining. The present child is told; one that dies is followed
// by one that never drained.
func (h *Host) Undrain(ctx context.Context) error {
	if begun, _ := h.shutdown.hasBegun(); begun {
		return h.drainingError()
	}
	h.mu.Lock()
	if h.draining {
		h.draining = false
		close(h.undrain)
		h.drain, h.undrain = make(chan struct{}), make(chan struct{})
	}
	h.mu.Unlock()
	return h.ended(ctx, stage.Resident.Undrain)
}

// Settle is the child's, behind the calls that were begun before.
func (h *Host) Settle(ctx context.Context, component string) error {
	if err := h.underway.settle(ctx, component); err != nil {
		return err
	}
	return h.ended(ctx, func(s stage.Resident, ctx context.Context) error { return s.Settle(ctx, component) })
}

// ended is for a call about what the present child does and is: one that dies, or is yet to come, does nothing and has heard nothing.
func (h *Host) ended(ctx context.Context, wait func(stage.Resident, context.Context) error) error {
	h.mu.Lock()
	g, child := h.current, h.current.child
	h.mu.Unlock()
	if child == nil {
		return nil
	}
	err := h.judge(ctx, g, wait(child.Stage(), ctx))
	if errors.Is(err, &stage.Error{Reason: stage.RuntimeDied}) {
		return nil
	}
	return err
}
