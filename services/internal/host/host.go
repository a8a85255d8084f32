// Package host supervises one runtime child on behalf of a service: it starts the child, starts it
// again when it dies, and is the stage that the child serves.
//
// Whatever happens to the child, calls end: those that run when it dies with RuntimeDied, those that
// come while it is started again wait for it. What a service promises its callers about its life,
// draining above all, is kept here and not in the child, which may be a new one at any moment.
//
// It may import stage and stage/stageplugin.
package host

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
)

// Host is the stage of a supervised child.
//
// One goroutine, supervise, starts, ends and replaces children. It shares state through the fields
// below mu. mu is a leaf: nothing is called and nothing waited for while it is held.
type Host struct {
	options stageplugin.Options
	logger  *slog.Logger
	clock   clock

	closing context.Context // ended by Close
	close   context.CancelFunc
	closed  chan struct{} // closed when supervise has ended

	underway underway
	shutdown shutdown

	mu       sync.Mutex
	current  *generation
	draining bool
	drain    chan struct{}              // closed while it is draining
	undrain  chan struct{}              // closed when it drains no more; both are then new ones
	digests  map[string]stage.Component // the last that had a digest or an identity, by name
	instance string                     // its name, for as long as it is
	idle     time.Time                  // when supervise was first found without a child and, since its last step, without another step
}

var _ stage.Stage = (*Host)(nil)

// generation is one child process and its number, or the wait for it. The first number of a service is the time, so that
// those of a service that follows it at its address are greater, and what was asked of a child here is not done there.
type generation struct {
	number uint64
	ready  chan struct{} // closed when child is set
	over   chan struct{} // closed when the next generation has become the current one

	child *stageplugin.Child // nil until ready; below Host.mu
	hung  string             // why the watchdog ended it, empty if it did not; below Host.mu
}

func newGeneration(number uint64) *generation {
	return &generation{number: number, ready: make(chan struct{}), over: make(chan struct{})}
}

// clock is the time that restarts are paced by.
type clock struct {
	now   func() time.Time
	after func(time.Duration) <-chan time.Time
}

// New starts a child, the first generation, and supervises it until Close. When this first one does
// not start, the error is stageplugin.Launch's: a command that never worked is not tried again. ctx
// is for this start alone.
func New(ctx context.Context, o stageplugin.Options) (*Host, error) {
	return start(ctx, o, clock{now: time.Now, after: time.After}, uint64(time.Now().UnixMilli()))
}

func start(ctx context.Context, o stageplugin.Options, c clock, first uint64) (*Host, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	h := &Host{
		options: o, logger: o.Logger.With("stage", o.Kind.String()), clock: c,
		closed: make(chan struct{}), drain: make(chan struct{}), undrain: make(chan struct{}), current: newGeneration(first), instance: rand.Text(), digests: map[string]stage.Component{},
	}
	h.closing, h.close = context.WithCancel(context.Background())
	child, err := stageplugin.Launch(ctx, o)
	if err != nil {
		h.close()
		return nil, err
	}
	h.fill(child)
	go h.supervise(child)
	return h, nil
}

// Close ends the child and returns when nothing is left of it. Calls that run fail with RuntimeDied, or with StageDraining behind
// Shut, and later ones with StageDraining; Drain first to let them end. It may be called more than once.
func (h *Host) Close() {
	h.close()
	<-h.closed
}

// End is Close at once: the child is not asked to stop first.
func (h *Host) End() {
	h.close()
	h.mu.Lock()
	child := h.current.child
	h.mu.Unlock()
	if child != nil {
		child.End()
	}
	<-h.closed
}

// PID is the process id of the present child, 0 while there is none.
func (h *Host) PID() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current.child == nil {
		return 0
	}
	return h.current.child.PID()
}

// Draining is closed when it drains, and then over when it does so no more.
func (h *Host) Draining() (drains, over <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drain, h.undrain
}

// drainingError is for work that comes after Drain or Close.
func (h *Host) drainingError() error {
	return stage.Errorf(stage.StageDraining, "the %v takes no new work", h.options.Kind).With("stage", h.options.Kind.String())
}

// died is for calls whose child has ended.
func (h *Host) died(how string) *stage.Error {
	return stage.Errorf(stage.RuntimeDied, "the runtime process of the %v %s", h.options.Kind, how).With("stage", h.options.Kind.String())
}
