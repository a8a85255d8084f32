package host

import (
	"context"
	"fmt"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// The watchdog asks a child for its pulse every pulseInterval, one question at a time.
//
// A child that is stopped or frozen does not answer and has no processor time meanwhile: maxIdle of that, and it is ended. An
// answer of a child at work on all processors takes milliseconds, and some hundred where as many others want them; a second at
// most where a hundred do. It has processor time then, which tells the two apart however late an answer is, so that only one
// that would be of no use to anybody, after maxSilence, is taken for a hang.
//
// A child that answers and has not moved for maxStill while something was running hangs as well, as with a deadlock of its
// threads: one movement is a task of an op or a chunk of 256 KiB, milliseconds of work. Where pauses are longer, because a disk
// or the machine is slow, it has stillFactor times the longest pause that ended well.
//
// Time counts for which the watchdog itself was on time: on a machine that was suspended, or has no processor even for it, a
// child cannot be expected to have answered.
const (
	pulseInterval = 500 * time.Millisecond
	maxLate       = 2 * pulseInterval
	maxIdle       = 5 * time.Second
	maxSilence    = time.Minute
	maxStill      = time.Minute
	stillFactor   = 20
)

// watchdog is what is known of a child's life. The zero value has seen nothing.
type watchdog struct {
	last         time.Time // the tick before
	usage        string
	silent, idle time.Duration // since the question that waits for an answer: in all, and without the processor
	since        time.Duration // the last answer
	pulse        stage.Pulse
	still        time.Duration // that it has not moved at work
	longest      time.Duration // such pause that ended
}

// tick takes up that it is now, and the child's usage; asked is that it owes an answer. It gives why the child is to be ended,
// empty if it is not.
func (w *watchdog) tick(now time.Time, usage string, asked bool) (why string) {
	passed := now.Sub(w.last)
	first, ran := w.last.IsZero(), usage == "" || usage != w.usage
	w.last, w.usage = now, usage
	if first || passed > maxLate {
		w.silent, w.idle, w.since = 0, 0, 0
		return ""
	}
	w.since += passed
	if !asked {
		return ""
	}
	w.silent += passed
	if w.idle += passed; ran {
		w.idle = 0
	}
	switch {
	case w.idle >= maxIdle:
		return fmt.Sprintf("did not answer and had no processor time for %v", w.idle.Round(time.Second))
	case w.silent >= maxSilence:
		return fmt.Sprintf("did not answer for %v", w.silent.Round(time.Second))
	}
	return ""
}

// answered takes up a pulse; the result is as tick's.
func (w *watchdog) answered(p stage.Pulse) (why string) {
	moved := p.Running == 0 || w.pulse.Running == 0 || p.Moved != w.pulse.Moved
	if moved {
		w.longest, w.still = max(w.longest, w.still), 0
	} else {
		w.still += w.since
	}
	w.pulse, w.silent, w.idle, w.since = p, 0, 0, 0
	if w.still >= max(maxStill, stillFactor*w.longest) {
		return fmt.Sprintf("stood still at work for %v", w.still.Round(time.Second))
	}
	return ""
}

// watched is a child.
type watched interface {
	Pulse(ctx context.Context) (stage.Pulse, error)
	Usage() string
	Exited() <-chan struct{}
}

// watch returns when the child has exited, or has to be ended: then it says why.
func watch(c watched) (why string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ticker := time.NewTicker(pulseInterval)
	defer ticker.Stop()
	var w watchdog
	answers, asked := make(chan stage.Pulse, 1), false
	for why == "" {
		select {
		case <-c.Exited():
			return ""
		case p := <-answers:
			asked = false
			why = w.answered(p)
		case <-ticker.C:
			why = w.tick(time.Now(), c.Usage(), asked)
			if !asked {
				asked = true
				go func() {
					p, _ := c.Pulse(ctx) // an error is an answer too
					answers <- p
				}()
			}
		}
	}
	return why
}

// guard has a generation's child ended when it hangs. It returns when the child has ended.
func (h *Host) guard(g *generation) {
	why := watch(g.child)
	if why == "" {
		return
	}
	h.logger.Error("the runtime hangs, it is ended", "pid", g.child.PID(), "generation", g.number, "reason", why)
	h.mu.Lock()
	g.hung = why
	h.mu.Unlock()
	g.child.End()
}

// end says how the child of a generation has ended; it waits for that.
func (h *Host) end(g *generation) string {
	exit := g.child.Exit()
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.hung != "" {
		return g.hung + " and was ended"
	}
	return fmt.Sprintf("ended during the call (%s)", exit)
}
