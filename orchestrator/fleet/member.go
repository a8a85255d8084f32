package fleet

import (
	"context"
	"fmt"
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

	mu     sync.Mutex  // held over the keeper's Join, Leave and Lost, so that they come in order
	info   *stage.Info // the last known, nil before the first answer
	joined bool        // the keeper counts on it
}

func newMember(id residency.StageID, kind stage.Kind, conn *grpc.ClientConn) *member {
	m := &member{id: id, kind: kind, conn: conn, kick: make(chan struct{}, 1)}
	switch kind {
	case stage.KindEncoder:
		m.encoder = stagerpc.NewEncoder(conn)
	case stage.KindDenoiser:
		m.denoiser = stagerpc.NewDenoiser(conn)
	case stage.KindDecoder:
		m.decoder = stagerpc.NewDecoder(conn)
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

// last is the last known info, nil before the first, and whether the service answers now.
func (m *member) last() (info *stage.Info, up bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info, m.joined
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

// look asks once and reports whether the service is there to work.
func (f *Fleet) look(ctx context.Context, m *member) bool {
	asked, cancel := context.WithTimeout(ctx, infoTimeout)
	info, err := m.resident().Info(asked)
	cancel()
	if ctx.Err() != nil {
		return false
	}
	if err == nil && info.Kind != m.kind {
		err = fmt.Errorf("a %v answers where a %v was expected", info.Kind, m.kind)
	}
	up := err == nil && !info.Draining

	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.info = &info
	}
	switch {
	case !up && m.joined:
		m.joined = false
		f.keeper.Leave(m.id)
		f.log.Warn("stage is gone", "stage", m.kind.String(), "address", string(m.id), "draining", info.Draining, "error", err)
	case up && !m.joined:
		m.joined = true
		f.keeper.Join(m.id, m.kind, residency.Device{Host: info.Host, Name: info.Device, BudgetBytes: info.MemoryBudgetBytes}, m.resident(), info)
		f.log.Info("stage is there", "stage", m.kind.String(), "address", string(m.id), "host", info.Host, "device", info.Device, "generation", info.Generation)
	case up:
		f.keeper.Lost(m.id, info.Generation)
	}
	f.notify()
	return up
}

// leave lets a service go that a call could not reach; the next look finds it again.
func (f *Fleet) leave(m *member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.joined {
		m.joined = false
		f.keeper.Leave(m.id)
	}
}
