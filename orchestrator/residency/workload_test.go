package residency

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/stage"
)

// TestWorkload: a snapshot tells what waits, what is announced and not asked for yet, and how far work is; the end of work tells how
// many evaluations were done under the lease.
func TestWorkload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done []Event
		h := newHouse(t, 1000, Options{Sink: func(e Event) {
			if e.Class == WorkDone {
				done = append(done, e)
			}
		}})
		need := func(k stage.Kind, evaluations int) Need {
			n := single(k, "m", weights[k], 10)
			n.Work = Workload{Model: "m", Turn: k.String(), Shape: "small", Evaluations: evaluations}
			return n
		}
		encode, denoise, decode := need(stage.KindEncoder, 1), need(stage.KindDenoiser, 20), need(stage.KindDecoder, 1)
		h.Announce("job", []Need{encode, denoise, decode})
		announced := func() (kinds []stage.Kind) {
			for _, a := range h.Snapshot().Announced {
				if a.Job != "job" || a.Need.Work.Model != "m" || a.Times != 1 {
					t.Errorf("announced is %+v", a)
				}
				kinds = append(kinds, a.Need.Kind)
			}
			return kinds
		}
		if diff := cmp.Diff(stage.Kinds(), announced()); diff != "" {
			t.Error(diff)
		}
		work := func(n Need, unfinished bool, while func(*Lease)) {
			l, err := h.Acquire(t.Context(), AcquireRequest{Job: "job", Need: n})
			if err != nil {
				t.Fatal(err)
			}
			while(l)
			if unfinished {
				l.Unfinished()
			}
			l.Release()
			synctest.Wait()
		}
		at := func(k stage.Kind) StageUse {
			for _, v := range h.Snapshot().Stages {
				if v.Kind == k {
					return v
				}
			}
			return StageUse{}
		}
		work(encode, false, func(*Lease) {
			if diff := cmp.Diff([]stage.Kind{stage.KindDenoiser, stage.KindDecoder}, announced()); diff != "" {
				t.Error(diff)
			}
		})
		work(denoise, true, func(l *Lease) {
			time.Sleep(3 * time.Second)
			if v := at(stage.KindDenoiser); v.Done != 0 || v.Total != 0 || v.Work != denoise.Work || time.Since(v.Since) != 3*time.Second {
				t.Errorf("before it is counted: %+v", v)
			}
			l.Progress(0, 20)
			l.Progress(7, 20)
			if v := at(stage.KindDenoiser); v.Done != 7 || v.Total != 20 {
				t.Errorf("at 7 of 20: %+v", v)
			}
		})
		work(denoise, false, func(l *Lease) {
			l.Progress(5, 20)
			l.Progress(20, 20)
			if v := at(stage.KindDenoiser); v.First != 5 || v.Done != 20 {
				t.Errorf("from 5 to 20: %+v", v)
			}
		})
		work(decode, true, func(*Lease) {})
		first := h.acquire(stage.KindDecoder)
		second := h.start(t.Context(), AcquireRequest{Job: "job", Need: decode})
		time.Sleep(2 * time.Second)
		first.Release()
		<-second.done
		time.Sleep(time.Second)
		if v := at(stage.KindDecoder); time.Since(v.Since) != time.Second {
			t.Errorf("work that waited is said to have lasted %v", time.Since(v.Since))
		}
		second.lease.Release()
		synctest.Wait()
		if v := at(stage.KindDenoiser); v.Total != 0 || v.Work != (Workload{}) {
			t.Errorf("at rest: %+v", v)
		}
		var evaluations []int
		for _, e := range done {
			evaluations = append(evaluations, e.Work.Evaluations)
		}
		if diff := cmp.Diff([]int{1, 7, 15, 0, 0, 1}, evaluations); diff != "" {
			t.Errorf("evaluations of encode, denoise cut at 7, denoise from 5, decode cut: %s", diff)
		}
		if len(done) > 0 && (done[0].Work.Turn != "encoder" || done[0].Work.Shape != "small" || done[0].Work.Model != "m") {
			t.Errorf("the end of work tells %+v", done[0].Work)
		}
	})
}

// TestAlikeTurns: turns that a job takes several times are told together, those that it has asked for are not.
func TestAlikeTurns(t *testing.T) {
	m := newChecked(t)
	short, long, decode := single(stage.KindDenoiser, "m", 1, 1), single(stage.KindDenoiser, "m", 1, 1), single(stage.KindDecoder, "m", 1, 1)
	short.Work.Evaluations, long.Work.Evaluations = 10, 20
	m.step(joined{
		holds: holds{stage: "s", resident: []stage.ResidentComponent{{Name: named(stage.KindDecoder, "m"), WeightsBytes: 1}}},
		kind:  stage.KindDecoder, device: Device{"h", "cpu", 0}, names: []string{named(stage.KindDecoder, "m")},
	})
	m.step(announced{"a", []Need{short, decode, short, decode, long, decode}})
	m.step(announced{"b", []Need{decode}})
	expect := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, a := range m.snapshot().Announced {
			got = append(got, fmt.Sprintf("%s %v %d: %d", a.Job, a.Need.Kind, a.Need.Work.Evaluations, a.Times))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	expect("at first", "a denoiser 10: 2", "a decoder 0: 3", "a denoiser 20: 1", "b decoder 0: 1")
	m.step(asked{1, "a", short, false, false})
	m.step(asked{2, "a", decode, true, false}) // a preview
	m.step(asked{3, "b", decode, false, false})
	expect("while they wait", "a denoiser 10: 1", "a decoder 0: 3", "a denoiser 20: 1")
	m.step(forgotten{"a"})
	expect("at the end")
}

// TestChanged: whatever changes a snapshot is told, also what nobody decided.
func TestChanged(t *testing.T) {
	told := 0
	k := New(Options{Changed: func() { told++ }})
	for name, change := range map[string]func(){
		"announce": func() { k.Announce("job", []Need{single(stage.KindEncoder, "m", 1, 1)}) },
		"forget":   func() { k.Forget("job") },
	} {
		before := told
		if change(); told <= before {
			t.Errorf("%s is not told", name)
		}
	}
	k.Close()
}

// TestLoadPaces: a kind's pace is that of all its services, and outlives them.
func TestLoadPaces(t *testing.T) {
	m := newChecked(t)
	m.pause = 0
	of := func(kind stage.Kind) LoadPace {
		for _, p := range m.snapshot().LoadPaces {
			if p.Kind == kind {
				return p
			}
		}
		t.Fatalf("no pace of %v", kind)
		return LoadPace{}
	}
	nominal := LoadPace{stage.KindDenoiser, 1. / NominalBytesPerSecond, 1. / nominalWarm}
	if diff := cmp.Diff(nominal, of(stage.KindDenoiser)); diff != "" {
		t.Error(diff)
	}
	name := named(stage.KindDenoiser, "m")
	m.step(joined{holds: holds{stage: "a"}, kind: stage.KindDenoiser, device: Device{"h", "cpu", 0}, names: []string{name}})
	m.step(asked{1, "job", single(stage.KindDenoiser, "m", 100, 5), false, false})
	m.now = m.now.Add(2 * time.Second)
	m.step(loadDone{op: m.lastOp})
	measured := LoadPace{stage.KindDenoiser, 0.02, 1. / nominalWarm}
	if diff := cmp.Diff(measured, of(stage.KindDenoiser)); diff != "" {
		t.Error(diff)
	}
	m.step(released{1})
	m.step(left{"a"})
	if diff := cmp.Diff(measured, of(stage.KindDenoiser)); diff != "" {
		t.Errorf("after it has left: %s", diff)
	}
	if p := of(stage.KindDecoder); p.FromFiles != 1./NominalBytesPerSecond {
		t.Errorf("another kind's pace is %v", p)
	}
}

// TestRestarts: a runtime process that is followed by another counts once, whoever noticed; a service that is another program does not.
func TestRestarts(t *testing.T) {
	m := newChecked(t)
	join := func(generation uint64) {
		m.step(joined{holds: holds{stage: "a"}, kind: stage.KindDenoiser, device: Device{"h", "cpu", 0}, generation: generation, names: []string{named(stage.KindDenoiser, "m")}})
	}
	expect := func(what string, want int) {
		t.Helper()
		if got := m.snapshot().Restarts; got[stage.KindDenoiser] != want || len(got) > 1 {
			t.Errorf("%s: %v, want %d", what, got, want)
		}
	}
	join(1)
	expect("a runtime", 0)
	m.step(seen{"a", 1})
	expect("the same", 0)
	m.step(seen{"a", 2})
	expect("the next", 1)
	m.died(m.service("a")) // found out by work
	m.step(seen{"a", 3})
	expect("the third, noticed twice", 2)
	join(1)
	expect("another program at the address", 2)
}
