package scale

import (
	"sync"

	"github.com/triptych-serving/triptych/orchestrator/residency"
)

// Meter measures the backlog. Safe for concurrent use.
type Meter struct {
	snapshot  func() residency.Snapshot
	unplanned func() []Unplanned

	mu    sync.Mutex
	paces Paces

	readers sync.Map // of chan struct{}, of capacity 1
}

// NewMeter makes a meter that has measured nothing. Both funcs are asked at each look.
func NewMeter(snapshot func() residency.Snapshot, unplanned func() []Unplanned) *Meter {
	return &Meter{snapshot: snapshot, unplanned: unplanned}
}

// Decided hears of a decision about memory, see residency.Options.Sink.
func (m *Meter) Decided(e residency.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paces.Learn(e)
}

// Backlog is the work there is now.
func (m *Meter) Backlog() Backlog {
	unplanned := m.unplanned() // before the snapshot: who is planned in between is in both, and known by the job
	s := m.snapshot()
	m.mu.Lock()
	defer m.mu.Unlock()
	return Of(s, unplanned, &m.paces)
}

// Changed tells those who follow that the backlog may be another one. It does not wait.
func (m *Meter) Changed() {
	m.readers.Range(func(wake, _ any) bool {
		select {
		case wake.(chan struct{}) <- struct{}{}:
		default:
		}
		return true
	})
}

// Follow gives a channel that has something to read whenever the backlog may be another one than when it was last read from. The
// caller must call the function returned.
func (m *Meter) Follow() (wake <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	m.readers.Store(c, true)
	return c, func() { m.readers.Delete(c) }
}
