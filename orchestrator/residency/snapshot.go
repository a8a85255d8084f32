package residency

import (
	"maps"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// Snapshot is the state of memory at one moment.
type Snapshot struct {
	Time          time.Time
	Devices       []DeviceUse        // by host/device
	Hosts         []HostUse          // that have memory for warm weights, by name
	Stages        []StageUse         // by id
	Components    []ComponentUse     // that are not absent; by stage and name
	Waiting       []Waiter           // requests not granted yet, by arrival
	Announced     []Announced        // turns of jobs that are not asked for yet, job after job
	LoadPaces     []LoadPace         // by kind
	Restarts      map[stage.Kind]int // of runtime processes, since the Keeper began
	DroppedEvents int                // that Options.Sink was too slow for
}

// DeviceUse is a device and its bytes.
type DeviceUse struct {
	Device
	UsedBytes int64 // reserved: weights in any state, and scratch
	PeakBytes int64 // the most reserved at once since the first stage joined
	// ForeignBytes are held by processes that do not work for this Keeper's orchestrator.
	ForeignBytes int64
}

// HostUse is the memory of a host for weights that are evicted from its devices.
type HostUse struct {
	Host                   string
	UsedBytes, BudgetBytes int64
}

// StageUse is a stage and who works there.
type StageUse struct {
	Stage        StageID
	Kind         stage.Kind
	Host         string
	Device       string    // host/device
	Request      RequestID // whose bytes are reserved there, 0 if nobody's
	Job          JobID     // that request's
	Components   []string  // that it needs
	Leased       bool      // it works; else the weights are loading for it
	ScratchBytes int64     // reserved for it
	Work         Workload  // that it does
	Since        time.Time // when that began, or the loading
	// Done of Total evaluations have ended, First of them before this lease, where they are counted; else all are 0.
	First, Done, Total int
}

// ComponentUse is a component at a stage.
type ComponentUse struct {
	Stage        StageID
	Kind         stage.Kind
	Component    string
	State        State
	WeightsBytes int64 // on the device
	WarmBytes    int64 // in the host's memory; of one that is loading or evicting, beside those on the device
}

// Waiter is a request that is not granted yet.
type Waiter struct {
	Request RequestID
	Job     JobID
	Need    Need
	Since   time.Time
	Stage   StageID // where room is made or weights load for it, empty while there is none
}

// Announced is a turn that a job will ask for so many times.
type Announced struct {
	Job   JobID
	Need  Need
	Times int
}

// LoadPace is how many seconds a byte takes to become resident at the services of a kind: as was measured there, or at those
// that are gone, else a nominal pace.
type LoadPace struct {
	Kind                stage.Kind
	FromFiles, FromWarm float64
}

// Snapshot is the state of memory now; it is empty once the Keeper is closed.
func (k *Keeper) Snapshot() (s Snapshot) {
	k.do(func() { s = k.look() })
	return s
}

// look is Snapshot in the owning goroutine.
func (k *Keeper) look() Snapshot {
	s := k.ledger.snapshot()
	s.Time, s.DroppedEvents = k.clock(), k.sink.lost()
	for i, v := range s.Stages {
		if c := k.callers[v.Request]; c != nil && v.Leased {
			s.Stages[i].First, s.Stages[i].Done, s.Stages[i].Total = int(c.first.Load()), int(c.reached.Load()), int(c.total.Load())
		}
	}
	return s
}

// toCome are the turns of a job that are not asked for yet, alike ones together.
func (l *ledger) toCome(j *job) (out []Announced) {
	for _, n := range j.needs {
		i := slices.IndexFunc(out, func(a Announced) bool { return a.Need.Work == n.Work && a.Need.equal(n) })
		if i < 0 {
			i, out = len(out), append(out, Announced{Job: j.id, Need: n})
		}
		out[i].Times++
	}
	for _, r := range l.requests {
		i := slices.IndexFunc(out, func(a Announced) bool { return a.Times > 0 && a.Need.equal(r.need) })
		if r.job == j.id && !r.try && i >= 0 {
			out[i].Times--
		}
	}
	return slices.DeleteFunc(out, func(a Announced) bool { return a.Times == 0 })
}

func (l *ledger) snapshot() (s Snapshot) {
	for _, d := range l.devices {
		s.Devices = append(s.Devices, DeviceUse{Device: d.Device, UsedBytes: l.used(d), PeakBytes: d.peak, ForeignBytes: d.foreign})
	}
	s.Hosts = l.hosts()
	for _, v := range l.services {
		use := StageUse{Stage: v.id, Kind: v.kind, Host: v.device.Host, Device: v.device.Key()}
		if r := v.holder; r != nil && r.phase >= reserved {
			use.Request, use.Job, use.Components, use.Leased = r.request, r.job, r.need.Components, r.phase == granted
			use.ScratchBytes, use.Work, use.Since = r.footprint().ScratchBytes, r.need.Work, r.since
		}
		s.Stages = append(s.Stages, use)
		for _, c := range v.components {
			if c.state != Absent {
				s.Components = append(s.Components, ComponentUse{
					Stage: v.id, Kind: v.kind, Component: c.name, State: c.state, WeightsBytes: c.bytes, WarmBytes: c.warm,
				})
			}
		}
	}
	for _, r := range l.requests {
		if r.phase == granted {
			continue
		}
		w := Waiter{Request: r.request, Job: r.job, Need: r.need, Since: r.asked}
		if r.service != nil {
			w.Stage = r.service.id
		}
		s.Waiting = append(s.Waiting, w)
	}
	for _, j := range l.jobs {
		s.Announced = append(s.Announced, l.toCome(j)...)
	}
	s.LoadPaces, s.Restarts = l.loadPaces(), maps.Clone(l.restarts)
	return s
}
