package residency

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/internal/deviceclaim"
	"github.com/triptych-serving/triptych/stage"
)

// TestSharedDevice plays some orchestrators that share a device through a real lease, and nothing else, at random. They
// never have more than the budget together, and every job of all of them comes to its end.
func TestSharedDevice(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newShared(t, rand.New(rand.NewPCG(seed, 0)))
			for steps := 0; s.open > 0; steps++ {
				if steps == 2_000 {
					for _, p := range s.players {
						t.Log(p.id, "\n", describe(&p.model.ledger))
					}
					t.Fatalf("%d jobs are still there", s.open)
				}
				s.players[s.random.IntN(len(s.players))].act()
			}
		})
	}
}

// shared is the device and those who share it.
type shared struct {
	t       *testing.T
	random  *rand.Rand
	players []*player
	now     time.Time
	budget  int64
	held    int64 // by all, as the leases granted it
	open    int   // jobs
}

// player is an orchestrator with its services.
type player struct {
	*shared
	id     string
	model  *checked
	leases map[StageID]*deviceclaim.Claim
	loaded map[StageID]int64 // bytes of weights
	turns  map[JobID][]Need  // yet to come, the first is asked for
	asked  map[RequestID]JobID
	runs   map[RequestID]int64 // scratch held
	last   RequestID
}

func newShared(t *testing.T, random *rand.Rand) *shared {
	s := &shared{t: t, random: random, now: time.Unix(1000, 0), budget: 120 + random.Int64N(100)}
	root := t.TempDir()
	for i := range 2 + random.IntN(2) {
		p := &player{
			shared: s, id: fmt.Sprint("orchestrator ", i), model: newChecked(t), leases: map[StageID]*deviceclaim.Claim{}, loaded: map[StageID]int64{},
			turns: map[JobID][]Need{}, asked: map[RequestID]JobID{}, runs: map[RequestID]int64{},
		}
		s.players = append(s.players, p)
		var needs []Need
		for i, f := range []struct{ weights, scratch int64 }{{40, 5}, {100, 20}, {40, 10}} {
			kind := stage.Kinds()[i]
			id := StageID(kind.String())
			l, err := deviceclaim.Open(root, "gpu:0", s.budget)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			p.leases[id] = l
			p.step(joined{holds: holds{stage: id}, kind: kind, device: Device{"h", "gpu:0", s.budget}, names: []string{named(kind, "m")}})
			needs = append(needs, single(kind, "m", f.weights, f.scratch))
		}
		for j := range 3 {
			job := JobID(fmt.Sprint(j))
			p.turns[job] = needs
			s.open++
			p.step(announced{job, needs})
			p.ask(job)
		}
	}
	return s
}

func (p *player) step(in input) {
	p.model.now = p.now
	p.model.step(in)
	p.now = p.model.now
}

// act does one of the things that may happen now.
func (p *player) act() {
	var can []func()
	for _, op := range slices.Sorted(maps.Keys(p.model.works)) {
		can = append(can, func() { p.work(op) })
	}
	for _, id := range slices.Sorted(maps.Keys(p.asked)) {
		if r := p.model.request(id); r == nil {
			p.t.Fatalf("%s refused r%d", p.id, id)
		} else if r.phase == granted {
			can = append(can, func() { p.run(r) })
		}
	}
	can = append(can, p.look)
	can[p.random.IntN(len(can))]()
}

// look asks the services how they are.
func (p *player) look() {
	for _, id := range slices.Sorted(maps.Keys(p.leases)) {
		share := p.leases[id].Observe(p.id, p.model.want(id))
		p.step(measured{stage: id, share: share})
	}
}

// reserve takes bytes for real.
func (p *player) reserve(id StageID, bytes int64) bool {
	if p.leases[id].Reserve(bytes) != nil {
		return false
	}
	if p.held += bytes; p.held > p.budget {
		p.t.Fatalf("%d bytes are held of %d", p.held, p.budget)
	}
	return true
}

func (p *player) release(id StageID, bytes int64) {
	p.leases[id].Release(bytes)
	p.held -= bytes
}

// work ends a load or an eviction.
func (p *player) work(op opID) {
	if c := p.model.busy(op, Evicting); c != nil {
		id := c.service.id
		freed := p.loaded[id]
		p.release(id, freed)
		p.loaded[id] = 0
		p.step(evictDone{op: op, freed: freed})
		return
	}
	c := p.model.busy(op, Loading)
	if id, bytes := c.service.id, c.bytes; p.reserve(id, bytes) {
		p.loaded[id] = bytes
		p.step(loadDone{op: op})
	} else {
		p.step(loadFailed{op, stage.Errorf(stage.DeviceBusy, "busy")})
	}
}

// run begins the work of a granted request, or ends it.
func (p *player) run(r *request) {
	id, job, at := r.request, p.asked[r.request], r.service.id
	scratch, running := p.runs[id]
	if !running {
		if bytes := r.footprint().ScratchBytes; p.reserve(at, bytes) {
			p.runs[id] = bytes
			return
		}
		p.step(found{id, crowded, ""})
	} else {
		p.release(at, scratch)
		delete(p.runs, id)
		p.turns[job] = p.turns[job][1:]
	}
	delete(p.asked, id)
	p.step(released{id})
	p.step(announced{job, p.turns[job]})
	p.ask(job)
}

// ask is for the next turn of a job, if there is one.
func (p *player) ask(job JobID) {
	if len(p.turns[job]) == 0 {
		p.open--
		p.step(forgotten{job})
		return
	}
	p.last++
	p.asked[p.last] = job
	p.step(asked{request: p.last, job: job, need: p.turns[job][0]})
}

// TestNeverRoom: a request whose loads find again and again that others have the bytes, of which nobody tells, is refused in
// the end.
func TestNeverRoom(t *testing.T) {
	m := newChecked(t)
	need := single(stage.KindDenoiser, "m", 50, 0)
	m.step(joined{holds: holds{stage: "den"}, kind: need.Kind, device: Device{"h", "d", 100}, names: need.Components})
	m.step(asked{request: 1, need: need})
	loads := 0
	for len(m.requests) > 0 && loads < 100 {
		m.step(loadFailed{m.service("den").find("m/unet").op, stage.Errorf(stage.DeviceBusy, "busy")})
		m.step(measured{stage: "den", share: stage.DeviceShare{BudgetBytes: 100}})
		loads++
	}
	if loads != maxRefusals+1 {
		t.Errorf("%d loads were tried", loads)
	}
}
