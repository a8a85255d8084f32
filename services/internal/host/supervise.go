package host

import (
	"cmp"
	"time"

	"github.com/triptych-serving/triptych/stage/stageplugin"
)

// supervise owns the children: it is the one to replace and to kill them. child is the first.
func (h *Host) supervise(child *stageplugin.Child) {
	defer close(h.closed)
	var pace pace
	for child != nil {
		born := h.clock.now()
		select {
		case <-h.closing.Done():
			child.Kill()
			return
		case <-child.Exited():
		}
		if h.closing.Err() != nil { // End's doing
			child.Kill()
			return
		}
		lived := h.clock.now().Sub(born)
		number := h.vacate()
		h.logger.Error("the runtime died", "pid", child.PID(), "generation", number-1,
			"exit", child.Exit(), "lived", lived, "stderr", child.LastOutput())
		child.Kill() // there is nothing to end but much to clean up
		child = h.relaunch(number, pace.afterLife(lived), &pace)
	}
}

// relaunch starts a child after delay, and again until it starts. It returns nil on Close.
func (h *Host) relaunch(number uint64, delay time.Duration, pace *pace) *stageplugin.Child {
	for {
		h.step()
		if delay > 0 {
			h.logger.Warn("the runtime keeps dying, waiting before the next start", "delay", delay)
		}
		select {
		case <-h.closing.Done():
			return nil
		case <-h.clock.after(delay):
		}
		child, err := stageplugin.Launch(h.closing, h.options)
		if err == nil {
			h.fill(child)
			h.logger.Info("the runtime is back", "pid", child.PID(), "generation", number)
			return child
		}
		if h.closing.Err() != nil {
			return nil
		}
		h.logger.Error("the runtime did not start", "error", err)
		delay = pace.afterLife(0)
	}
}

// fill makes child the one of the current generation.
func (h *Host) fill(child *stageplugin.Child) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current.child, h.idle = child, time.Time{}
	close(h.current.ready)
	go h.guard(h.current)
}

// vacate begins the next generation, which has no child yet, and returns its number.
func (h *Host) vacate() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.current
	h.current = newGeneration(last.number + 1)
	close(last.over)
	return h.current.number
}

// step notes that supervise has got on.
func (h *Host) step() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.idle = time.Time{}
}

// superviseGrace is what a step of supervise may take beyond its pause and the start of a child.
const superviseGrace = 15 * time.Second

// Supervised reports whether the child is there or being replaced. It is false for a supervisor that does not get on.
func (h *Host) Supervised() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing.Err() != nil {
		return true
	}
	if child := h.current.child; child != nil {
		select {
		case <-child.Exited():
		default:
			return true
		}
	}
	now := h.clock.now()
	if h.idle.IsZero() {
		h.idle = now
	}
	return now.Sub(h.idle) < maxDelay+cmp.Or(h.options.StartTimeout, stageplugin.DefaultStartTimeout)+superviseGrace
}
