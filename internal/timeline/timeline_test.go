package timeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

const (
	reserve  = triptychv1alpha1.ResidencyEvent_ACTION_RESERVE
	load     = triptychv1alpha1.ResidencyEvent_ACTION_LOAD
	prefetch = triptychv1alpha1.ResidencyEvent_ACTION_PREFETCH
	loaded   = triptychv1alpha1.ResidencyEvent_ACTION_LOADED
	evict    = triptychv1alpha1.ResidencyEvent_ACTION_EVICT
	wait     = triptychv1alpha1.ResidencyEvent_ACTION_WAIT
	refuse   = triptychv1alpha1.ResidencyEvent_ACTION_REFUSE
	lost     = triptychv1alpha1.ResidencyEvent_ACTION_LOST
	keep     = triptychv1alpha1.ResidencyEvent_ACTION_KEEP
	drop     = triptychv1alpha1.ResidencyEvent_ACTION_DROP
	release  = triptychv1alpha1.ResidencyEvent_ACTION_RELEASE
	grant    = triptychv1alpha1.ResidencyEvent_ACTION_GRANT
	withdraw = triptychv1alpha1.ResidencyEvent_ACTION_WITHDRAW

	forRequest = triptychv1alpha1.ResidencyEvent_CLASS_FOR_REQUEST
	failed     = triptychv1alpha1.ResidencyEvent_CLASS_FAILED
	evicted    = triptychv1alpha1.ResidencyEvent_CLASS_EVICTED
	workDone   = triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE
	withdrawn  = triptychv1alpha1.ResidencyEvent_CLASS_WORK_WITHDRAWN
)

var epoch = time.Unix(1_000_000, 0)

// story is a timeline of decisions, each a millisecond after the one before.
type story struct {
	Timeline
	now time.Time
}

// begin is a story on one device with a denoiser at "d" and a decoder at "v".
func begin() *story {
	s := &story{now: epoch}
	s.Add(snapshot(epoch, &triptychv1alpha1.ResidencySnapshot{
		Devices: []*triptychv1alpha1.DeviceUse{{Device: "h/cpu", BudgetBytes: 100}},
		Services: []*triptychv1alpha1.ServiceUse{
			{Service: "d", Stage: "denoiser", Device: "h/cpu"}, {Service: "v", Stage: "decoder", Device: "h/cpu"},
		},
	}))
	return s
}

func snapshot(at time.Time, s *triptychv1alpha1.ResidencySnapshot) *triptychv1alpha1.WatchResidencyResponse {
	s.Time = timestamppb.New(at)
	return &triptychv1alpha1.WatchResidencyResponse{News: &triptychv1alpha1.WatchResidencyResponse_Snapshot{Snapshot: s}}
}

// then adds a decision of a request about a model at a service, after which so many bytes are used.
func (s *story) then(a triptychv1alpha1.ResidencyEvent_Action, c triptychv1alpha1.ResidencyEvent_Class, request uint64, service, model string, used int64) *story {
	s.now = s.now.Add(time.Millisecond)
	stages := map[string]string{"d": "denoiser", "v": "decoder", "": "denoiser"}
	e := &triptychv1alpha1.ResidencyEvent{
		Time: timestamppb.New(s.now), Action: a, Class: c, Stage: stages[service], Model: model, Device: "h/cpu", UsedBytes: used, BudgetBytes: 100, Reason: "why",
	}
	if strings.Contains(model, "/") {
		e.Model, e.Component = stage.ModelOf(model), model
	}
	s.Add(&triptychv1alpha1.WatchResidencyResponse{News: &triptychv1alpha1.WatchResidencyResponse_Decision{Decision: &triptychv1alpha1.ResidencyDecision{
		Event: e, Request: request, Job: fmt.Sprint("job-", request), Service: service,
	}}})
	return s
}

// written writes the timeline one millisecond after the last decision and gives a line for each event
// that is no name of a track. It checks what holds for every trace.
func (s *story) written(t *testing.T) []string {
	t.Helper()
	var out bytes.Buffer
	if err := s.Write(&out, s.now.Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var f file
	decoder := json.NewDecoder(&out)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		t.Fatal(err)
	}
	names := map[[2]int]string{}
	free := map[[2]int]float64{} // from when on a track is
	var lines []string
	for _, e := range f.Events {
		at := [2]int{e.Process, e.Thread}
		switch e.Phase {
		case phaseName:
			if name, ok := e.Args["name"].(string); ok {
				names[at] = name
			}
		case phaseSlice:
			if *e.Duration < 0 || e.Time < free[at] || names[at] == "" {
				t.Errorf("on %q, which is free from %v on: %+v, %v µs long", names[at], free[at], e, *e.Duration)
			}
			free[at] = e.Time + *e.Duration
			line := fmt.Sprintf("%v-%v %s#%d %s", e.Time/1000, free[at]/1000, names[at], e.Thread, e.Name)
			for _, key := range []string{"job", "began", "end"} {
				if value := e.Args[key]; value != nil {
					line += fmt.Sprintf(" %s=%v", key, value)
				}
			}
			lines = append(lines, line)
		case phaseCounter:
			lines = append(lines, fmt.Sprintf("%v %s %v", e.Time/1000, e.Name, e.Args["bytes"]))
		case phaseInstant:
			lines = append(lines, fmt.Sprintf("%v %s", e.Time/1000, e.Name))
		default:
			t.Errorf("phase %q", e.Phase)
		}
	}
	return lines
}

func expect(t *testing.T, got []string, without string, want ...string) {
	t.Helper()
	if without != "" {
		got = slices.DeleteFunc(got, func(line string) bool { return strings.Contains(line, without) })
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestTurn: a request waits, makes room, loads and computes, while the next stage is prefetched.
func TestTurn(t *testing.T) {
	s := begin().
		then(wait, 0, 1, "", "m", 60).
		then(evict, forRequest, 1, "v", "m", 60).
		then(release, evicted, 1, "v", "m", 0).
		then(reserve, 0, 1, "d", "m", 60).
		then(load, 0, 1, "d", "m", 60).
		then(loaded, 0, 1, "d", "m", 60).
		then(grant, 0, 1, "d", "m", 60).
		then(prefetch, 0, 0, "v", "m", 90).
		then(loaded, 0, 0, "v", "m", 90).
		then(release, workDone, 1, "d", "m", 80)
	expect(t, s.written(t), "",
		"0 budget bytes 100",
		"0 used bytes 0",
		"1 used bytes 60",
		"1-4 waiting for denoiser#3 wait m job=job-1",
		"2-3 decoder v#2 evict m job=job-1",
		"3 used bytes 0",
		"4 used bytes 60",
		"5-6 denoiser d#1 load m job=job-1",
		"7-10 denoiser d#1 compute m job=job-1",
		"8 used bytes 90",
		"8-9 decoder v#2 prefetch m job=job-0",
		"10 used bytes 80",
		"11 budget bytes 100",
		"11 used bytes 80",
	)
	if s.Slices() != 5 {
		t.Errorf("%v", s.Slices())
	}
}

// TestOverlap: what happens in one service at once is on tracks of their own, of one name.
func TestOverlap(t *testing.T) {
	s := begin().
		then(grant, 0, 1, "d", "m", 60).
		then(prefetch, 0, 0, "d", "n", 60).
		then(wait, 0, 2, "", "m", 60).
		then(wait, 0, 3, "", "m", 60).
		then(release, workDone, 1, "d", "m", 60).
		then(loaded, 0, 0, "d", "n", 60).
		then(withdraw, 0, 3, "", "m", 60).
		then(refuse, 0, 2, "", "m", 60)
	expect(t, s.written(t), "bytes",
		"1-5 denoiser d#1 compute m job=job-1",
		"2-6 denoiser d#3 prefetch n job=job-0",
		"3-8 waiting for denoiser#4 wait m job=job-2 end=why",
		"4-7 waiting for denoiser#5 wait m job=job-3",
		"8 refuse m",
	)
}

// TestComponents: two components that a service has of one model do not end each other's loads.
func TestComponents(t *testing.T) {
	s := begin().
		then(load, 0, 1, "v", "m/vae.encoder", 30).
		then(prefetch, 0, 0, "v", "m/vae.decoder", 60).
		then(loaded, 0, 1, "v", "m/vae.encoder", 60).
		then(grant, 0, 1, "v", "m/vae.encoder", 60).
		then(loaded, 0, 0, "v", "m/vae.decoder", 60).
		then(release, workDone, 1, "v", "m/vae.encoder", 60)
	expect(t, s.written(t), "bytes",
		"1-3 decoder v#2 load m/vae.encoder job=job-1",
		"2-5 decoder v#3 prefetch m/vae.decoder job=job-0",
		"4-6 decoder v#2 compute m/vae.encoder job=job-1",
	)
}

// TestWarm: what the host keeps is dropped, or fails to be.
func TestWarm(t *testing.T) {
	s := begin().
		then(evict, triptychv1alpha1.ResidencyEvent_CLASS_AFTER_USE, 0, "d", "m", 60).
		then(release, evicted, 0, "d", "m", 0).
		then(keep, 0, 0, "d", "m", 0).
		then(drop, 0, 0, "d", "m", 0).
		then(keep, failed, 0, "d", "m", 0).
		then(drop, 0, 0, "d", "m", 0).
		then(release, evicted, 0, "d", "m", 0)
	expect(t, s.written(t), "bytes",
		"1-2 denoiser d#1 evict m job=job-0",
		"4-5 denoiser d#1 drop m job=job-0 end=why",
		"6-7 denoiser d#1 drop m job=job-0",
	)
}

// TestBadEnds: a load that is cancelled or fails, an eviction that fails, a caller that gives up while
// its weights load, and a lost runtime close what they end and nothing else.
func TestBadEnds(t *testing.T) {
	s := begin().
		then(load, 0, 1, "d", "m", 60).
		then(release, withdrawn, 1, "d", "m", 60).
		then(evict, 0, 0, "d", "m", 60). // cancels the load
		then(evict, failed, 0, "d", "m", 60).
		then(load, 0, 2, "d", "m", 60).
		then(release, failed, 2, "d", "m", 60).
		then(grant, 0, 3, "v", "m", 60).
		then(grant, 0, 4, "d", "m", 60).
		then(lost, 0, 0, "d", "n", 60). // of the same process
		then(lost, 0, 4, "d", "m", 60)
	expect(t, s.written(t), "bytes",
		"1-3 denoiser d#1 load m job=job-1 end=overtaken",
		"3-4 denoiser d#1 evict m job=job-0 end=why",
		"5-6 denoiser d#1 load m job=job-2 end=why",
		"7-11 decoder v#2 compute m job=job-3 end=after the trace",
		"8-10 denoiser d#1 compute m job=job-4 end=why",
		"9 lost n",
		"10 lost m",
	)
}

// TestSnapshots: what was under way before the trace opens with it; a snapshot after lost decisions
// closes what was open, and says so.
func TestSnapshots(t *testing.T) {
	s := &story{now: epoch}
	s.then(load, 0, 9, "d", "m", 1) // before the first snapshot: nothing to go by
	s.now = epoch
	under := func(dropped int64) *triptychv1alpha1.WatchResidencyResponse {
		return snapshot(s.now, &triptychv1alpha1.ResidencySnapshot{
			DroppedDecisions: dropped,
			Services: []*triptychv1alpha1.ServiceUse{
				{Service: "d", Stage: "denoiser", Device: "h/cpu", Request: 1, Job: "one", Model: "m", Working: true},
				{Service: "v", Stage: "decoder", Device: "h/cpu", Request: 2, Job: "two", Model: "m"},
			},
			Components: []*triptychv1alpha1.ComponentUse{
				{Service: "d", Model: "m", State: triptychv1alpha1.ComponentUse_STATE_RESIDENT},
				{Service: "d", Model: "n", State: triptychv1alpha1.ComponentUse_STATE_EVICTING},
				{Service: "v", Model: "m", State: triptychv1alpha1.ComponentUse_STATE_LOADING},
			},
			Waiting: []*triptychv1alpha1.WaitingRequest{{Request: 2, Job: "two", Stage: "decoder"}, {Request: 3, Job: "three", Stage: "decoder"}},
		})
	}
	s.Add(under(0))
	s.then(release, workDone, 1, "d", "m", 60)
	s.now = epoch.Add(5 * time.Millisecond)
	s.Add(under(7))
	s.then(release, evicted, 0, "d", "n", 60)
	if got := s.String(); got != "8 slices, lost decisions: 7" {
		t.Error(got)
	}
	lines := s.written(t)
	slices.Sort(lines)
	expect(t, lines, "bytes",
		"0-1 denoiser d#1 compute m job=one began=before the trace",
		"0-5 decoder v#2 load m began=before the trace end=what came next was lost",
		"0-5 denoiser d#3 evict n began=before the trace end=what came next was lost",
		"0-5 waiting for decoder#4 wait job=three began=before the trace end=what came next was lost",
		"5 decisions were lost",
		"5-6 denoiser d#3 evict n began=before the trace",
		"5-7 decoder v#2 load m began=before the trace end=after the trace",
		"5-7 denoiser d#1 compute m job=one began=before the trace end=after the trace",
		"5-7 waiting for decoder#4 wait job=three began=before the trace end=after the trace",
	)
}

// TestNothing: a timeline without news is a valid file.
func TestNothing(t *testing.T) {
	s := &story{now: epoch}
	expect(t, s.written(t), "")
}
