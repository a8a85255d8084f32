package fleet

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// member is one service.
type member struct {
	id   residency.StageID
	kind stage.Kind
	conn *grpc.ClientConn
	kick chan struct{} // asks for an immediate look

	encoder  stage.Encoder // the one of its kind is set
	denoiser stage.Denoiser
	decoder  stage.Decoder

	mu     sync.Mutex  // held over the keeper's Join, Leave and Lost, so that they come in order; before Fleet.mu
	info   *stage.Info // the last known, nil before the first answer
	joined bool        // the keeper knows it, and what it holds; info is then set
	owned  bool        // it works for another orchestrator
}

func newMember(id residency.StageID, kind stage.Kind, conn *grpc.ClientConn, orchestrator string) *member {
	as := stagerpc.As(conn, orchestrator)
	m := &member{id: id, kind: kind, conn: conn, kick: make(chan struct{}, 1)}
	switch kind {
	case stage.KindEncoder:
		m.encoder = stagerpc.NewEncoder(as)
	case stage.KindDenoiser:
		m.denoiser = stagerpc.NewDenoiser(as)
	case stage.KindDecoder:
		m.decoder = stagerpc.NewDecoder(as)
	}
	return m
}

func (m *member) resident() stage.Resident {
	switch m.kind {
	case stage.KindEncoder:
		return m.encoder
	case stage.KindDenoiser:
		return m.denoiser
	}
	return m.decoder
}

// last is the last known info, nil before the first, and whether the service is there to work.
func (m *member) last() (info *stage.Info, up bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info, m.joined && !m.info.Draining
}

// elsewhere tells whether the service works for another orchestrator.
func (m *member) elsewhere() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.owned
}

// watch asks a service how it is, again and again, and tells the keeper what changed.
func (f *Fleet) watch(ctx context.Context, m *member) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.kick:
		case <-timer.C:
		}
		wait := watchInterval
		if !f.look(ctx, m) {
			wait = retryInterval
		}
		timer.Reset(wait)
	}
}

// look asks once and reports whether the service is there to work. A service that drains stays with
// the keeper, which gives it no work and counts what it holds, until it no longer answers.
func (f *Fleet) look(ctx context.Context, m *member) bool {
	asked, cancel := context.WithTimeout(ctx, infoTimeout)
	asked = stage.WithCaller(asked, stage.Caller{Want: f.keeper.Want(m.id)})
	info, err := m.resident().Info(asked)
	cancel()
	if ctx.Err() != nil {
		return false
	}
	log := f.log.With("stage", m.kind.String(), "address", string(m.id))
	m.mu.Lock()
	defer m.mu.Unlock()
	defer f.notify()
	owned := stage.ReasonOf(err) == stage.StageOwned
	if owned && !m.owned {
		log.Warn("stage works for another orchestrator")
	}
	m.owned = owned
	if err != nil {
		if m.joined && !owned {
			log.Warn("stage is gone", "error", err)
		}
		f.drop(m)
		return false
	}
	last := m.info
	m.info = &info
	if m.joined && info.Draining == last.Draining && info.Generation >= last.Generation {
		f.keeper.Lost(m.id, info.Generation)
		f.keeper.Measure(m.id, info)
		return !info.Draining
	}
	m.joined = true
	f.plans.forget() // another program may answer now, with other files
	f.keeper.Join(m.id, m.kind, residency.Device{Host: info.Host, Name: info.Device, BudgetBytes: info.MemoryBudgetBytes}, m.resident(), info)
	log.Info("stage is there", "host", info.Host, "device", info.Device, "generation", info.Generation, "draining", info.Draining)
	return !info.Draining
}

// drop takes a service from the keeper; the next look that finds it brings it back. m.mu is held.
func (f *Fleet) drop(m *member) {
	if m.joined {
		m.joined = false
		f.keeper.Leave(m.id)
	}
}
