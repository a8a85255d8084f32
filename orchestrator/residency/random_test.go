package residency

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

var seeds = flag.Int("seeds", 10_000, "random worlds to play; a tenth of them with -short or the race detector")

// TestRandomWorlds plays random inputs. Every step is checked (see checked.step); at the end all work
// succeeds and every lease is released, and then nobody may be left waiting and no byte be lost. Some
// worlds are played twice: equal inputs must give equal decisions.
func TestRandomWorlds(t *testing.T) {
	n := *seeds
	if testing.Short() || raced {
		n /= 10
	}
	for seed := range int64(n) {
		w := newWorld(t, seed)
		w.play()
		if seed%8 > 0 {
			continue
		}
		again := newWorld(t, seed)
		again.play()
		if a, b := w.out.String(), again.out.String(); a != b {
			t.Fatalf("seed %d decides differently the second time:\n%s", seed, a)
		}
	}
}

// world is a random set of stages, models and jobs.
type world struct {
	*checked
	*rand.Rand
	out      strings.Builder
	stages   []joined
	needs    []Need
	sets     bool // some needs are of several components
	classes  []string
	failures bool // loads and evictions may fail
	last     RequestID
}

func newWorld(t *testing.T, seed int64) *world {
	w := &world{checked: newChecked(t), Rand: rand.New(rand.NewSource(seed)), classes: []string{""}}
	w.name = fmt.Sprint("seed ", seed)
	w.failures = w.Intn(2) == 0
	w.policy.WaitFactor = []float64{0, 1, 1.5, 4}[w.Intn(4)]
	w.settings()
	models := []string{"a", "b", "c"}[:1+w.Intn(3)]
	w.sets = w.Intn(2) == 0
	if w.Intn(3) == 0 {
		w.classes = []string{"", "other"}
	}
	for _, kind := range stage.Kinds() {
		for i, m := range models {
			w.needs = append(w.needs, w.need(kind, m))
			if w.sets && i > 0 { // which overlap
				w.needs = append(w.needs, w.need(kind, m, models[w.Intn(i)]))
			}
		}
		if w.sets && len(models) == 3 {
			w.needs = append(w.needs, w.need(kind, "b", "c", "a"))
		}
	}
	var warmBudget int64
	if w.Intn(2) == 0 {
		warmBudget = int64(20 + w.Intn(200))
	}
	devices := make([]Device, 1+w.Intn(2))
	for i := range devices {
		devices[i] = Device{Host: "h", Name: fmt.Sprint(i), BudgetBytes: int64(w.Intn(4)/3*1000 + 60 + w.Intn(140))}
		if w.Intn(10) == 0 {
			devices[i].BudgetBytes = 0
		}
	}
	for i := range 3 + w.Intn(4) {
		w.stages = append(w.stages, joined{
			warmBudget: warmBudget, holds: holds{stage: StageID(fmt.Sprint("s", i))}, kind: stage.Kinds()[i%3], device: devices[w.Intn(len(devices))],
			planning: w.class(),
		})
		for _, m := range models[:1+w.Intn(len(models))] {
			w.stages[i].names = append(w.stages[i].names, named(w.stages[i].kind, m))
		}
	}
	return w
}

// class is one of those that services may be of.
func (w *world) class() string { return w.classes[w.Intn(len(w.classes))] }

// need is a set of a kind, which takes something else at services of each class; some classes do not know.
func (w *world) need(kind stage.Kind, models ...string) Need {
	n := Need{Kind: kind, Footprints: map[string]stage.Footprint{}}
	for _, m := range models {
		n.Components = append(n.Components, named(kind, m))
	}
	for _, class := range w.classes {
		f := takes(int64(w.Intn(20)))
		for range models {
			bytes := int64(1 + w.Intn(60/len(models)))
			f.Weights = append(f.Weights, stage.Weights{Bytes: bytes, WholeBytes: bytes})
		}
		if w.Intn(5) == 0 { // streamed, for much scratch
			f.ScratchBytes = int64(w.Intn(120))
			f.Weights[0].Bytes /= 3
		}
		if len(w.classes) == 1 || w.Intn(8) > 0 {
			n.Footprints[class] = f
		}
	}
	return n
}

// renewed is one of the needs, which may be told anew what it takes.
func (w *world) renewed() Need {
	i := w.Intn(len(w.needs))
	if n := &w.needs[i]; w.Intn(8) == 0 {
		var models []string
		for _, name := range n.Components {
			models = append(models, stage.ModelOf(name))
		}
		*n = w.need(n.Kind, models...)
	}
	return w.needs[i]
}

// settings draws a policy; half of the worlds have the default but for the wait factor.
func (w *world) settings() {
	if w.Intn(2) == 0 {
		return
	}
	p := &w.policy
	for _, kind := range stage.Kinds() {
		switch w.Intn(8) {
		case 0:
			p.Never = append(p.Never, Selector{kind, []string{"", "a"}[w.Intn(2)]})
		case 1, 2:
			p.AfterUse = append(p.AfterUse, Selector{Kind: kind})
		}
	}
	p.MinResidency = []time.Duration{0, time.Second, 5 * time.Second}[w.Intn(3)]
	p.IdleTTL = []time.Duration{0, 2 * time.Second, 20 * time.Second}[w.Intn(3)]
	p.HighWatermark = []float64{0, 0.7, 1}[w.Intn(3)]
	p.LowWatermark = p.HighWatermark * w.Float64()
	if err := p.Check(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) step(in input) {
	w.t.Helper()
	w.pause = []time.Duration{0, moment / 3, time.Second}[w.Intn(3)]
	if !w.wake.IsZero() { // the Keeper is never late
		if left := w.wake.Sub(w.now); w.pause >= left {
			w.pause = left
			fmt.Fprint(&w.out, w.checked.step(ticked{}))
		}
	}
	out := w.checked.step(in)
	switch in := in.(type) {
	case loadFailed:
		fmt.Fprintf(&w.out, "%T %d %v\n%s", in, in.op, in.err, out)
	case evictFailed:
		fmt.Fprintf(&w.out, "%T %d %v\n%s", in, in.op, in.err, out)
	case cancelled:
		fmt.Fprintf(&w.out, "%T %d\n%s", in, in.request, out)
	default:
		fmt.Fprintf(&w.out, "%T%+v\n%s", in, in, out)
	}
}

func (w *world) play() {
	w.t.Helper()
	for _, s := range w.stages {
		w.step(s)
	}
	for range 20 + w.Intn(120) {
		w.step(w.any())
	}
	w.drain()
}

// any is something that may happen now.
func (w *world) any() input {
	job := JobID(fmt.Sprint("j", w.Intn(4)))
	switch n := w.Intn(100); {
	case n < 1:
		w.last++
		return asked{w.last, job, w.renewed(), false, true}
	case n < 2:
		return found{w.anyRequest(), exhausted, ""}
	case n < 3:
		return found{w.anyRequest(), distrusted, "a test says so"}
	case n < 20:
		w.last++
		return asked{w.last, job, w.renewed(), w.Intn(5) == 0, false}
	case n < 30:
		in := announced{job: job}
		for range w.Intn(6) {
			in.needs = append(in.needs, w.renewed())
		}
		return in
	case n < 33:
		return forgotten{job}
	case n < 55:
		return released{w.anyRequest()}
	case n < 58:
		return cancelled{w.anyRequest(), errors.New("context canceled")}
	case n < 59:
		return found{w.anyRequest(), failed, ""}
	case n < 92 && len(w.works) > 0:
		return w.result(w.failures && w.Intn(8) == 0)
	case n < 95:
		return seen{w.anyStage().stage, uint64(w.Intn(4))}
	case n < 96 && w.Intn(2) == 0:
		return silenced{w.anyStage().stage, w.Intn(2) == 0}
	case n < 96 && w.Intn(2) == 0:
		at := w.anyStage()
		in := holds{stage: at.stage, since: w.lastOp - opID(w.Intn(3))}
		for _, name := range at.names {
			switch w.Intn(4) {
			case 0:
				in.resident = append(in.resident, w.held(name))
			case 1:
				in.warm = append(in.warm, w.held(name))
			}
		}
		return in
	case n < 96:
		return left{w.anyStage().stage}
	case n < 98:
		in := w.anyStage()
		in.draining, in.since, in.generation = w.Intn(8) == 0, w.lastOp-opID(w.Intn(3)), uint64(w.Intn(4))
		if w.Intn(4) == 0 {
			in.planning = w.class()
		}
		for _, name := range in.names {
			if w.Intn(2) == 0 {
				in.resident = append(in.resident, w.held(name))
			} else if in.warmBudget > 0 && w.Intn(2) == 0 {
				in.warm = append(in.warm, w.held(name))
			}
		}
		return in
	}
	return loadDone{op: 0} // no such op
}

// held is some weights of a component, which may be stale.
func (w *world) held(name string) stage.ResidentComponent {
	return stage.ResidentComponent{Name: name, WeightsBytes: int64(1 + w.Intn(60)), Stale: []string{"", "", "", "old"}[w.Intn(4)]}
}

func (w *world) anyStage() joined { return w.stages[w.Intn(len(w.stages))] }

func (w *world) anyRequest() RequestID {
	if len(w.requests) == 0 {
		return 0
	}
	return w.requests[w.Intn(len(w.requests))].request
}

// result is what becomes of one of the works.
func (w *world) result(fails bool) input {
	ops := slices.Sorted(maps.Keys(w.works))
	op := ops[w.Intn(len(ops))]
	reasons := []stage.Reason{stage.ModelInvalid, stage.RuntimeDied, stage.ModelDoesNotFit, stage.StageUnreachable}
	err := stage.Errorf(reasons[w.Intn(len(reasons))], "no")
	evicts := w.busy(op, Evicting) != nil
	switch {
	case evicts && fails:
		return evictFailed{op, err}
	case evicts:
		done := evictDone{op: op}
		if c := w.busy(op, Evicting); c.bytes > 0 && w.Intn(8) > 0 { // else it was not kept after all
			done.warm = c.warm
		}
		return done
	case fails:
		return loadFailed{op, err}
	}
	return loadDone{op: op}
}

// drain lets everything succeed until nothing is under way.
func (w *world) drain() {
	w.t.Helper()
	for _, s := range w.stages {
		w.step(silenced{s.stage, false})
	}
	for range 100_000 {
		granted := slices.IndexFunc(w.requests, func(r *request) bool { return r.phase == granted })
		switch {
		case len(w.works) > 0:
			w.step(w.result(false))
		case granted >= 0:
			w.step(released{w.requests[granted].request})
		default:
			w.step(forgotten{"nobody"}) // lets failed evictions be tried again
			if len(w.works) > 0 || !w.wake.IsZero() {
				continue
			}
			w.finish()
			return
		}
	}
	w.t.Fatalf("%s: it never ends:\n%s", w.name, describe(&w.ledger))
}

// finish checks what is left when all has ended.
func (w *world) finish() {
	w.t.Helper()
	for _, r := range w.requests {
		if len(w.candidates(r.need)) > 0 {
			w.t.Fatalf("r%d was neither granted nor refused:\n%s", r.request, describe(&w.ledger))
		}
	}
	for _, d := range w.devices {
		var weights, pinned int64
		for c := range w.on(d) {
			weights += c.bytes
			if w.policy.pinned(c) { // which stages that joined may hold more of than the budget
				pinned += c.bytes
			}
		}
		if used := w.ledger.used(d); used != weights || d.BudgetBytes > 0 && used > max(d.BudgetBytes, pinned) {
			w.t.Fatalf("%s: %s has %d bytes of weights and uses %d of %d:\n%s", w.name, d.Key(), weights, used, d.BudgetBytes, describe(&w.ledger))
		}
	}
	for _, h := range w.hosts() {
		if h.UsedBytes > h.BudgetBytes {
			w.t.Fatalf("%s: %s keeps %d of %d:\n%s", w.name, h.Host, h.UsedBytes, h.BudgetBytes, describe(&w.ledger))
		}
	}
	for _, s := range w.stages {
		w.step(left{s.stage})
	}
	if len(w.devices) > 0 {
		w.t.Fatalf("%s is left", w.devices[0].Key())
	}
	for key, used := range w.used {
		if used != 0 {
			w.t.Fatalf("%d bytes of %s have leaked", used, key)
		}
	}
}
