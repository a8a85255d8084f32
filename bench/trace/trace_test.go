package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestMaps: mappings that asked for huge pages are the device's; files are nobody's.
func TestMaps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smaps")
	const maps = `00400000-00500000 r-xp 00000000 fe:00 1 /bin/triptych
Rss:                 900 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
c000000000-c000400000 rw-p 00000000 00:00 0
Rss:                4096 kB
Anonymous:          4096 kB
VmFlags: rd wr mr mw me ac sd
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
Rss:                2048 kB
Anonymous:          2048 kB
VmFlags: rd wr mr mw me ac sd hg
7f0000300000-7f0000400000 rw-p 00000000 00:00 0
Rss:                1000 kB
Anonymous:          1000 kB
VmFlags: rd wr mr mw me hg ac sd
7f0000400000-7f0000500000 ---p 00000000 00:00 0
Rss:                 500 kB
Anonymous:           500 kB
VmFlags: mr mw me hg ac sd
`
	if err := os.WriteFile(path, []byte(maps), 0o600); err != nil {
		t.Fatal(err)
	}
	var s sample
	for range 2 { // two processes
		if err := s.add(path); err != nil {
			t.Fatal(err)
		}
	}
	if s.arena != 2*(3048<<10) || s.warm != 2*(500<<10) || s.other != 2*(4096<<10) {
		t.Errorf("%+v", s)
	}
	if err := s.add(path + "x"); err == nil {
		t.Error("a process that is gone is no error")
	}
}

// TestLedger follows a record and compares it with samples.
func TestLedger(t *testing.T) {
	const (
		reserve  = triptychv1alpha1.ResidencyEvent_ACTION_RESERVE
		load     = triptychv1alpha1.ResidencyEvent_ACTION_LOAD
		loaded   = triptychv1alpha1.ResidencyEvent_ACTION_LOADED
		evict    = triptychv1alpha1.ResidencyEvent_ACTION_EVICT
		release  = triptychv1alpha1.ResidencyEvent_ACTION_RELEASE
		prefetch = triptychv1alpha1.ResidencyEvent_ACTION_PREFETCH
		workDone = triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE
		evicted  = triptychv1alpha1.ResidencyEvent_CLASS_EVICTED
	)
	l := newLedger()
	begin := time.Unix(0, 0).UTC()
	at := func(second int) time.Time { return begin.Add(time.Duration(second) * time.Second) }
	for i, e := range []*triptychv1alpha1.ResidencyEvent{
		{Action: reserve, Stage: "denoiser", Bytes: 120, UsedBytes: 120},
		{Action: load, Stage: "denoiser", Bytes: 100, UsedBytes: 120},
		{Action: loaded, Stage: "denoiser", Bytes: 100, UsedBytes: 120},                                // at 2: settled, 20 of scratch
		{Action: prefetch, Stage: "decoder", Bytes: 40, UsedBytes: 160},                                // more than the budget
		{Action: loaded, Stage: "decoder", Bytes: 40, UsedBytes: 160},                                  // at 4
		{Action: release, Class: workDone, Stage: "denoiser", Bytes: 20, UsedBytes: 140},               // at 5: no scratch
		{Action: evict, Stage: "denoiser", Bytes: 100, UsedBytes: 140},                                 // at 6: not settled
		{Action: release, Class: evicted, Stage: "denoiser", Bytes: 100, UsedBytes: 40},                // at 7
		{Action: triptychv1alpha1.ResidencyEvent_ACTION_WAIT, Stage: "denoiser", Bytes: 1, Device: ""}, // moves nothing
	} {
		e.Time, e.BudgetBytes = timestamppb.New(at(i)), 150
		if e.GetAction() != triptychv1alpha1.ResidencyEvent_ACTION_WAIT {
			e.Device = "h/cpu:0"
		}
		l.add(&triptychv1alpha1.ResidencyDecision{Event: e})
	}
	if l.peak != 160 || l.over != 2 || l.loads != 1 || l.prefetched != 1 || l.evictions != 1 || l.loaded != 140 || l.peaks["denoiser"] != 120 || l.sure["denoiser"] != 100 || l.sure["decoder"] != 40 || l.held["denoiser"] != 0 || l.held["decoder"] != 40 {
		t.Errorf("%+v", l)
	}
	for allocator, off := range map[int64]int64{99: 1, 100: 0, 120: 0, 125: 5} {
		if got := (stagePeak{Ledger: 120, Sure: 100, Allocator: allocator}).off(); got != off {
			t.Errorf("%d allocated are off by %d", allocator, got)
		}
	}
	half := 500 * time.Millisecond
	var samples []sample
	for second, arena := range []int64{60, 60, 110, 100, 130, 147, 100, 38} { // half a second behind each decision
		samples = append(samples, sample{time: at(second).Add(half), arena: arena, other: 30})
	}
	r := newRow(60, 150, time.Second, sample{other: 10}, samples, l, half)
	// Settled are those behind 0 (with nothing but scratch), 2, 4, 5 and 7. Below the weights: 10 of 160, 2 of 40; above
	// all: 7 of 140.
	if r.Settled != 5 || r.BelowMost != 6.25 || r.AboveMost != 5 || r.BelowMean != (6.25+5)/5 {
		t.Errorf("%+v", r)
	}
	if r.ArenaPeak != 147 || r.SamplesOver != 0 || r.OtherPeak != 30 || r.OtherBaseline != 10 || r.AllPeak != 167 {
		t.Errorf("%+v", r)
	}
	table := (&report{Rows: []row{r}}).markdown()
	if !strings.Contains(table, "| 60 %") {
		t.Error(table)
	}
}

// decide adds a decision about a denoiser.
func (l *ledger) decide(a triptychv1alpha1.ResidencyEvent_Action, c triptychv1alpha1.ResidencyEvent_Class, component string, bytes int64) {
	l.add(&triptychv1alpha1.ResidencyDecision{Event: &triptychv1alpha1.ResidencyEvent{Action: a, Class: c, Stage: "denoiser", Component: component, Bytes: bytes}})
}

// TestWarm follows what the host's memory keeps.
func TestWarm(t *testing.T) {
	l := newLedger()
	at := l.decide
	const (
		keep     = triptychv1alpha1.ResidencyEvent_ACTION_KEEP
		load     = triptychv1alpha1.ResidencyEvent_ACTION_LOAD
		loaded   = triptychv1alpha1.ResidencyEvent_ACTION_LOADED
		drop     = triptychv1alpha1.ResidencyEvent_ACTION_DROP
		release  = triptychv1alpha1.ResidencyEvent_ACTION_RELEASE
		evicted  = triptychv1alpha1.ResidencyEvent_CLASS_EVICTED
		fromWarm = triptychv1alpha1.ResidencyEvent_CLASS_FROM_WARM
	)
	at(keep, 0, "m", 100)
	at(keep, 0, "n", 10)
	at(load, 0, "m", 100)
	at(loaded, fromWarm, "m", 100)
	at(drop, 0, "n", 10)
	at(release, evicted, "n", 0)
	at(keep, 0, "n", 20)
	if l.keptPeak != 110 || total(l.kept) != 20 || l.fromWarm != 1 || l.loads != 1 || l.loaded != 0 {
		t.Errorf("%+v", l)
	}
}

// TestCertain: with the scratch of a work goes what was there from its grant to its end.
func TestCertain(t *testing.T) {
	l := newLedger()
	at := l.decide
	const (
		reserve  = triptychv1alpha1.ResidencyEvent_ACTION_RESERVE
		grant    = triptychv1alpha1.ResidencyEvent_ACTION_GRANT
		evict    = triptychv1alpha1.ResidencyEvent_ACTION_EVICT
		release  = triptychv1alpha1.ResidencyEvent_ACTION_RELEASE
		found    = triptychv1alpha1.ResidencyEvent_CLASS_FOUND
		workDone = triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE
		evicted  = triptychv1alpha1.ResidencyEvent_CLASS_EVICTED
	)
	at(reserve, found, "m", 100)
	at(reserve, found, "n", 50)
	l.scratch["denoiser"] = 0 // what was found is no scratch
	at(reserve, 0, "m", 20)
	at(grant, 0, "m", 120)
	at(evict, 0, "n", 50) // perhaps before the scratch is there
	at(release, evicted, "n", 50)
	at(release, workDone, "m", 20)
	if l.peaks["denoiser"] != 170 || l.sure["denoiser"] != 150 {
		t.Errorf("%+v", l)
	}
	at(reserve, 0, "m", 60)
	at(grant, 0, "m", 160)
	at(release, workDone, "m", 60)
	if l.sure["denoiser"] != 160 {
		t.Errorf("%+v", l)
	}
}
