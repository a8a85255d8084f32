package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// Of the orchestrators that look at the same services one owns them all, and the others stand by:
//
//   - A look claims a service that nobody owns. A service has one owner, until that leaves or is silent for 10 s.
//   - Who sees a service of an elder owner, or owns none while another one does, stands by: it gives back what it has, and its
//     looks claim nothing.
//   - Who stands by claims again once it sees no other owner.
//   - An owner that drains says so with its looks. Who would stand by for such ones alone is their heir: it claims as little, but
//     takes requests, which wait for the stages.
//
// The eldest owner gives nothing back, so the others come to it. Who owns none yields to a younger one too, so a service that
// starts again stays with the owner. An owner without a rank is nobody's elder. Its service may not know what a standby is, and
// is claimed again and again: what that yields too early is given back.

// Standing is what an orchestrator is among those that look at the same services.
type Standing int

// The standings.
const (
	Alone   Standing = iota // it owns no service and sees no other owner
	Owner                   // it owns services, and sees none of an elder
	Standby                 // another one owns services
	Heir                    // others own services, and all of them drain
)

// String is the word in the log.
func (s Standing) String() string {
	switch s {
	case Alone:
		return "alone"
	case Owner:
		return "owner"
	case Standby:
		return "standby"
	case Heir:
		return "heir"
	}
	return fmt.Sprintf("standing(%d)", int(s))
}

// yields tells whether an orchestrator leaves the services to others.
func (s Standing) yields() bool { return s == Standby || s == Heir }

// tenure is whose a service is, as the last look at it found.
type tenure int

const (
	pending  tenure = iota // not asked yet
	unknown                // it cannot be reached, or is no service
	vacant                 // nobody's
	mine                   // this orchestrator's
	nameless               // another one's that tells no rank
	younger                // a younger one's
	elder                  // an elder one's
	drained                // another one's that drains, of whatever age: it will leave
	vanished               // the member is forgotten
)

// heritable tells whether an heir gets a service that is still there when the owner has left.
func (t tenure) heritable() bool { return t == drained || t == vacant || t == mine }

// standings is an orchestrator's standing, and what it follows from. Safe for concurrent use; mu is a leaf.
type standings struct {
	rank stage.Rank
	log  *slog.Logger

	mu   sync.Mutex
	now  Standing
	seen map[*member]tenure
	over context.Context // of the watching; nothing changes before it, or behind its end
}

// decide is the standing behind one, by the tenures of all services.
func decide(was Standing, seen map[*member]tenure) Standing {
	count := map[tenure]int{}
	for _, t := range seen {
		count[t]++
	}
	others, waits := count[elder]+count[younger]+count[nameless] > 0, was.yields() || count[mine]+count[pending] == 0
	switch {
	case count[elder] > 0, others && waits:
		return Standby
	case count[drained] > 0 && waits:
		return Heir
	case count[mine] > 0:
		return Owner
	}
	return Alone
}

// note takes down whose a service is, and tells whether that changes the standing.
func (s *standings) note(m *member, t tenure) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil || s.over.Err() != nil {
		return false
	}
	s.seen[m] = t
	if t == vanished {
		delete(s.seen, m)
	}
	was := s.now
	if s.now = decide(was, s.seen); s.now == was {
		return false
	}
	s.log.Info("standing among orchestrators", "standing", s.now.String(), "before", was.String())
	for m, t := range s.seen {
		switch {
		case s.now.yields() && t == mine:
			m.ask() // it is given back
		case !s.now.yields() && was.yields() && t != mine:
			s.seen[m] = pending
			m.ask() // it may be claimed
		}
	}
	return true
}

// watch has the standing follow from what is noted until ctx ends.
func (s *standings) watch(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = ctx
}

// of is whose a service is.
func (s *standings) of(m *member) tenure {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[m]
}

// owned is the tenure that StageOwned tells.
func (s *standings) owned(err error) tenure {
	switch by := stagerpc.OwnerRank(err); {
	case by == "":
		return nameless
	case by == s.rank: // a late call of this one has claimed it
		return mine
	case stagerpc.OwnerDraining(err):
		return drained
	case by.Elder(s.rank):
		return elder
	}
	return younger
}

// Standing is the orchestrator's.
func (f *Fleet) Standing() Standing {
	f.standings.mu.Lock()
	defer f.standings.mu.Unlock()
	return f.standings.now
}

// StandsBy is StageOwned of an orchestrator that stands by, else nil.
func (f *Fleet) StandsBy() error {
	if f.Standing() != Standby {
		return nil
	}
	return stage.Errorf(stage.StageOwned, "another orchestrator owns the stages, and this one stands by; the request may be repeated")
}

// Yields is StageOwned of an orchestrator that stands by or is an heir, else nil.
func (f *Fleet) Yields() error {
	if f.Standing() == Heir {
		return stage.Errorf(stage.StageOwned, "another orchestrator owns the stages, and finishes its work before this one has them")
	}
	return f.StandsBy()
}

// Drain tells the services that the orchestrator begins no more requests, so that another one takes them and waits.
func (f *Fleet) Drain() {
	f.draining.Store(true)
	for _, m := range f.all() {
		m.ask()
	}
}

// Owning is ctx until the orchestrator stands by, which may be from the start; StandsBy is then its cause. The caller must call the
// function returned.
func (f *Fleet) Owning(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stands := func() bool {
		err := f.StandsBy()
		if err != nil {
			cancel(err)
		}
		return err != nil
	}
	if !stands() {
		go func() { _ = f.Await(ctx, stands) }() // which ends with ctx
	}
	return ctx, func() { cancel(context.Canceled) }
}

// stood takes down whose a service is, and wakes who waits for another standing.
func (f *Fleet) stood(m *member, t tenure) {
	if f.standings.note(m, t) {
		f.notify()
	}
}

// standBy looks whether another orchestrator owns a service, and claims nothing. What is still this one's is given back before.
func (f *Fleet) standBy(ctx context.Context, m *member) {
	m.mu.Lock()
	had := m.joined || f.standings.of(m) == mine
	f.drop(m)
	m.mu.Unlock()
	if had {
		f.giveBack(ctx, m)
	}
	asked, cancel := context.WithTimeout(stage.WithCaller(ctx, stage.Caller{Standby: true}), infoTimeout)
	info, err := m.stage.Info(asked)
	cancel()
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	defer f.notify()
	switch {
	case err == nil:
		m.well()
		m.info, m.problem = &info, standingBy
		f.stood(m, vacant)
	case stage.ReasonOf(err) == stage.StageOwned:
		f.fail(m, err)
		f.stood(m, f.standings.owned(err))
	default:
		f.fail(m, err)
		f.stood(m, unknown)
	}
}

// giveBack has a service work for nobody, if it still works for this orchestrator.
func (f *Fleet) giveBack(ctx context.Context, m *member) {
	ctx, cancel := context.WithTimeout(stage.WithCaller(ctx, stage.Caller{Leaving: true}), leaveTimeout)
	defer cancel()
	_, _ = m.stage.Info(ctx) // whatever it says: the next look tells whose it is
}

// ask has the service asked at once how it is.
func (m *member) ask() {
	select {
	case m.kick <- struct{}{}:
	default: // it will be
	}
}
