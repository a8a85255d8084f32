package residency

import (
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Machine is the Keeper's ledger without the Keeper: the caller says what happens and when, does the
// work it is told of, in whatever sense, and tells when it is done. It is for simulations, on whose clock
// nothing waits. Not safe for concurrent use.
type Machine struct{ ledger ledger }

// NewMachine makes an empty ledger of a policy, as a rival decides.
func NewMachine(p Policy, r Rival) *Machine { return &Machine{ledger{policy: p, rival: r}} }

// Rival is what a ledger does worse than ours, for comparison. The zero value is ours.
type Rival struct {
	// Order sorts idle components: the first goes first when room is made, whatever is known of the future; nil is the
	// ledger's own choice.
	Order func(a, b Idle) int
	// Greedy evicts the least loss for a byte first, one after another, instead of planning.
	Greedy bool
	// NoPrefetch leaves every load to the request that needs it.
	NoPrefetch bool
}

// Decision is what a step of the ledger came to. Every list is in the order of the decisions.
type Decision struct {
	Granted []RequestID // have stage, weights and scratch until they are released
	Refused []RequestID // are over without a grant: ModelDoesNotFit
	Works   []Work
	Events  []Event
}

// Work is a load or an eviction that begins now. Done tells when it is over.
type Work struct {
	ID        uint64 // from 1
	Stage     StageID
	Component string
	Bytes     int64 // of a load
	Evict     bool
	Warm      bool   // from the host's memory, or, of an eviction, to it
	Cancels   uint64 // the load that an eviction stops, of which Done is not to be told any more; 0 is none
}

// Join adds a stage that can load these components and holds none. Its host has so many bytes of memory for warm weights.
func (m *Machine) Join(now time.Time, id StageID, kind stage.Kind, device Device, components []string, warmBytes int64) Decision {
	return m.step(now, joined{holds: holds{stage: id}, kind: kind, device: device, names: components, warmBudget: warmBytes})
}

// Announce is Keeper.Announce.
func (m *Machine) Announce(now time.Time, job JobID, needs []Need) Decision {
	return m.step(now, announced{job, needs})
}

// Forget is Keeper.Forget.
func (m *Machine) Forget(now time.Time, job JobID) Decision { return m.step(now, forgotten{job}) }

// Acquire asks for a stage. The request is the caller's to number and is granted or refused, now or later.
func (m *Machine) Acquire(now time.Time, r RequestID, job JobID, need Need) Decision {
	return m.step(now, asked{request: r, job: job, need: need})
}

// Release ends a granted request.
func (m *Machine) Release(now time.Time, r RequestID) Decision { return m.step(now, released{r}) }

// Done tells that a work has succeeded.
func (m *Machine) Done(now time.Time, w Work) Decision {
	if w.Evict {
		done := evictDone{op: opID(w.ID)}
		if c := m.ledger.busy(done.op, Evicting); c != nil {
			done.freed = c.bytes
			if w.Warm {
				done.warm = c.warm
			}
		}
		return m.step(now, done)
	}
	return m.step(now, loadDone{op: opID(w.ID)})
}

// Tick tells that time has passed. It is due at the latest when Wake says.
func (m *Machine) Tick(now time.Time) Decision { return m.step(now, ticked{}) }

// Wake is when the next decision is due if nothing happens until then; zero if none is.
func (m *Machine) Wake() time.Time { return m.ledger.wake }

func (m *Machine) step(now time.Time, in input) (d Decision) {
	var effects []effect
	effects, d.Events = m.ledger.step(now, in)
	for _, e := range effects {
		switch e := e.(type) {
		case startLoad:
			d.Works = append(d.Works, Work{ID: uint64(e.op), Stage: e.at.stage, Component: e.name, Bytes: e.bytes, Warm: e.warm})
		case startEvict:
			d.Works = append(d.Works, Work{ID: uint64(e.op), Stage: e.at.stage, Component: e.name, Evict: true, Warm: e.warm, Cancels: uint64(e.load)})
		case grant:
			d.Granted = append(d.Granted, e.request)
		case refuse:
			d.Refused = append(d.Refused, e.request)
		}
	}
	return d
}

// Idle is a component that nobody pins, as a Rival sees it.
type Idle struct {
	Bytes    int64
	Loaded   uint64 // counts loads and evictions, when it was loaded
	LastUsed time.Time
}
