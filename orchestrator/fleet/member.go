package fleet

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// member is one service.
type member struct {
	id    residency.StageID
	kind  stage.Kind
	host  string // that its certificate is for, empty for that of its address
	stage stage.Stage
	conn  *link
	ear   *ear
	kick  chan struct{} // asks for an immediate look
	given bool          // by its address
	names []*name       // that have listed it; Fleet.mu guards them

	mu      sync.Mutex        // held over what the keeper is told of it, so that it comes in order; before Fleet.mu
	info    *stage.Info       // the last known, nil before the first answer
	joined  bool              // the keeper knows it, and what it holds; info is then set
	silent  bool              // and it does not answer, or has not yet since a report
	mute    bool              // and nothing else was heard of it since it was asked, not of work either
	twin    residency.StageID // the address at which the service counts already, empty if it counts here
	doubted bool              // and may be another, or hold something else, than the keeper believes: it joins again when it answers

	problem   string // why it gets no work, as the last look found; empty when it answers
	diagnosis string // of a service that cannot be reached, "" if nothing was found
	diagnosed bool   // it was asked for
	logged    string // the problem that was logged last
}

func newMember(id residency.StageID, kind stage.Kind, conn *link, ear *ear, orchestrator string, rank stage.Rank, host string) *member {
	return &member{id: id, kind: kind, host: host, stage: stagerpc.New(stagerpc.As(conn, orchestrator, rank), kind), conn: conn, ear: ear, kick: make(chan struct{}, 1)}
}

// can tells whether a service can load a component.
func can(info *stage.Info, name string) bool {
	c := component(info, name)
	return c.Name != "" && c.Problem == ""
}

// canAll tells whether a service can load all of some components.
func canAll(info *stage.Info, names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !can(info, name) })
}

// last is the last known info, nil before the first, and whether the service is there to work.
func (m *member) last() (info *stage.Info, up bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info, m.joined && !m.silent && !m.info.Draining
}

// known tells whether the keeper knows the service.
func (m *member) known() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined
}

// watch asks a service how it is, again and again, and tells the keeper what changed, until the service is to be forgotten.
func (f *Fleet) watch(ctx context.Context, m *member) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var (
		diagnosing sync.WaitGroup
		found      chan string // nil while nobody diagnoses
		again      time.Time   // when somebody may
	)
	defer diagnosing.Wait()
	f.stood(m, pending)
	defer f.stood(m, vanished)
	for {
		select {
		case <-ctx.Done():
			return
		case words := <-found:
			found = nil
			f.conclude(m, words)
			continue
		case <-m.kick:
		case <-timer.C:
		}
		wait := watchInterval
		if !f.look(ctx, m) {
			if ctx.Err() == nil && f.forget(m) {
				_ = m.conn.retire(ctx) // there is nobody to tell
				return
			}
			if !f.Standing().yields() && m.twin == "" {
				wait = retryInterval
			}
			f.heal(ctx, m)
			if now := time.Now(); found == nil && !now.Before(again) && f.wantsDiagnosis(m) {
				asked := make(chan string, 1)
				found, again = asked, now.Add(diagnosePause)
				diagnosing.Go(func() { asked <- f.diagnose(ctx, string(m.id), m.host) })
			}
		}
		timer.Reset(wait)
	}
}

// look asks once and reports whether the service is there to work. A service that drains stays with
// the keeper, which gives it no work and counts what it holds, until it no longer answers. So does one that does
// not answer in time over a connection that stands: its process lives, and so do its bytes.
func (f *Fleet) look(ctx context.Context, m *member) bool {
	if f.Standing().yields() && f.standings.of(m) != nameless {
		f.standBy(ctx, m)
		return false
	}
	asked, cancel := context.WithTimeout(ctx, infoTimeout)
	moment, begin := f.keeper.Now(), time.Now()
	asked = stage.WithCaller(asked, stage.Caller{Want: f.keeper.Want(m.id), Draining: f.draining.Load()})
	info, err := m.stage.Info(asked)
	cancel()
	if ctx.Err() != nil {
		return false
	}
	log := f.logOf(m)
	m.mu.Lock()
	defer m.mu.Unlock()
	defer f.notify()
	switch {
	case err == nil:
		f.stood(m, mine)
		if f.Standing().yields() { // since it was asked: it is given back
			m.ask()
			return false
		}
		if f.counted(m, info) {
			return false
		}
		if why := f.unshared(m.id, info); why != "" {
			m.diagnosis, m.diagnosed = "", false
			f.blame(m, why)
			f.silence(m)
			return false
		}
		m.well()
	case m.joined && errors.Is(err, context.DeadlineExceeded) && m.conn.GetState() == connectivity.Ready:
		if !m.silent {
			log.Warn("stage does not answer; it keeps what it holds and gets no new work", "waited", infoTimeout)
		}
		f.silence(m)
		m.mute = !m.ear.heardSince(begin)
		return false
	case stage.ReasonOf(err) == stage.StageOwned:
		f.fail(m, err)
		f.drop(m)
		f.stood(m, f.standings.owned(err))
		return false
	default:
		if m.joined {
			log.Warn("stage is gone", "error", err)
		}
		f.fail(m, err)
		f.drop(m)
		f.stood(m, unknown)
		return false
	}
	last, names := m.info, true
	m.info = &info
	if last != nil {
		var same bool
		if names, same = alike(last, &info); !same {
			f.plans.forget(m.kind, info.Planning)
		}
	}
	if m.joined && !m.doubted && names && info.Draining == last.Draining && info.Generation >= last.Generation {
		f.keeper.Measure(m.id, info, moment)
		if m.silent {
			m.silent, m.mute = false, false
			log.Info("stage answers again", "generation", info.Generation)
		}
		return !info.Draining
	}
	news := "stage is there"
	if m.joined && !names {
		news = "stage has other components"
	}
	m.joined, m.silent, m.mute, m.doubted = true, false, false, false
	f.plans.forget(m.kind, info.Planning) // another program may answer now, with other files
	f.keeper.Join(m.id, m.kind, residency.Device{Host: info.Host, Name: info.Device, BudgetBytes: info.MemoryBudgetBytes}, m.stage, info, moment)
	log.Info(news, "host", info.Host, "device", info.Device, "generation", info.Generation, "draining", info.Draining)
	return !info.Draining
}

func (f *Fleet) logOf(m *member) *slog.Logger {
	return f.log.With("stage", m.kind.String(), "address", string(m.id))
}

// heal has a service take work again that drains, if that is wanted.
func (f *Fleet) heal(ctx context.Context, m *member) {
	m.mu.Lock()
	drains := m.joined && !m.silent && m.info.Draining
	m.mu.Unlock()
	if !f.undrain || !drains {
		return
	}
	asked, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	if err := m.stage.Undrain(asked); err == nil {
		f.logOf(m).Info("stage was drained, and takes work again")
	}
}

// silence has the keeper give a service nothing to do until it answers. m.mu is held.
func (f *Fleet) silence(m *member) {
	if m.joined && !m.silent {
		m.silent = true
		f.keeper.Silent(m.id)
	}
}

// drop takes a service from the keeper; the next look that finds it brings it back. m.mu is held.
func (f *Fleet) drop(m *member) {
	f.unclaim(m.id)
	m.twin = ""
	if m.joined {
		m.joined, m.silent, m.mute, m.doubted = false, false, false, false
		f.keeper.Leave(m.id)
	}
}
