package top

import (
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

type (
	news     = triptychv1alpha1.WatchResidencyResponse
	decision = triptychv1alpha1.ResidencyDecision
	event    = triptychv1alpha1.ResidencyEvent
	action   = triptychv1alpha1.ResidencyEvent_Action
	class    = triptychv1alpha1.ResidencyEvent_Class
)

const mib = 1 << 20

const (
	unet    = "starter/unet"
	decoder = "starter/vae.decoder"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// first is a fixed snapshot: a denoiser works, a decoder is evicted and nobody has used the encoder.
func first(dropped int64) *news {
	return &news{News: &triptychv1alpha1.WatchResidencyResponse_Snapshot{Snapshot: &triptychv1alpha1.ResidencySnapshot{
		Time: timestamppb.New(noon), DroppedDecisions: dropped,
		Devices: []*triptychv1alpha1.DeviceUse{
			{Device: "host/cpu:0", UsedBytes: 30 * mib, BudgetBytes: 40 * mib, PeakBytes: 39 * mib}, {Device: "host/cpu:1"},
		},
		Services: []*triptychv1alpha1.ServiceUse{
			{Service: "10.0.0.1:3", Stage: "decoder", Device: "host/cpu:0"},
			{Service: "10.0.0.1:2", Stage: "denoiser", Device: "host/cpu:0", Request: 1, Job: "job-1", Model: "starter", Components: []string{unet}, Working: true, ScratchBytes: mib},
			{Service: "10.0.0.1:1", Stage: "encoder", Device: "host/cpu:1"},
		},
		Components: []*triptychv1alpha1.ComponentUse{
			{Service: "10.0.0.1:2", Model: "starter", Component: unet, State: triptychv1alpha1.ComponentUse_STATE_RESIDENT, WeightsBytes: 17 * mib},
			{Service: "10.0.0.1:3", Model: "starter", Component: decoder, State: triptychv1alpha1.ComponentUse_STATE_EVICTING, WeightsBytes: 12 * mib},
			{Service: "10.0.0.1:3", Model: "starter", Component: "starter/vae.encoder", State: triptychv1alpha1.ComponentUse_STATE_RESIDENT, WeightsBytes: 8 * mib},
			{Service: "10.0.0.1:3", Model: "tiny", State: triptychv1alpha1.ComponentUse_STATE_WARM, WarmBytes: 3 * mib},
			{Service: "10.0.0.1:3", Model: "turbo", State: triptychv1alpha1.ComponentUse_STATE_EVICTING, WarmBytes: mib},
		},
		Hosts:   []*triptychv1alpha1.HostUse{{Host: "host", UsedBytes: 4 * mib, BudgetBytes: 20 * mib}},
		Waiting: []*triptychv1alpha1.WaitingRequest{{Request: 2, Job: "job-2", Stage: "denoiser", Model: "starter", Components: []string{unet, "starter/controlnet"}, Since: timestamppb.New(noon.Add(-time.Minute))}},
	}}}
}

// then is a decision about the starter, a second after noon.
func then(a action, c class, request uint64, service, stage string, bytes, used int64) *news {
	job := ""
	if request > 0 {
		job = "job-" + string(rune('0'+request))
	}
	return &news{News: &triptychv1alpha1.WatchResidencyResponse_Decision{Decision: &decision{
		Request: request, Job: job, Service: service, Event: &event{
			Time: timestamppb.New(noon.Add(time.Second)), Action: a, Class: c, Stage: stage, Model: "starter", Component: map[string]string{"denoiser": unet, "decoder": decoder}[stage], Device: "host/cpu:0",
			Bytes: bytes, UsedBytes: used, BudgetBytes: 40 * mib, Reason: "it is so",
		},
	}}}
}

// far is how far a job is, at those works.
func far(job string, images, done int32, works ...*triptychv1alpha1.Progress) *news {
	return &news{News: &triptychv1alpha1.WatchResidencyResponse_Job{Job: &triptychv1alpha1.JobProgress{Job: job, Model: "starter", Images: images, ImagesDone: done, Work: works}}}
}

func at(stage string, step, steps int32) *triptychv1alpha1.Progress {
	return &triptychv1alpha1.Progress{Stage: stage, Step: step, Steps: steps}
}

const (
	released  = triptychv1alpha1.ResidencyEvent_ACTION_RELEASE
	evicted   = triptychv1alpha1.ResidencyEvent_CLASS_EVICTED
	workDone  = triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE
	withdrawn = triptychv1alpha1.ResidencyEvent_CLASS_WORK_WITHDRAWN
	failed    = triptychv1alpha1.ResidencyEvent_CLASS_FAILED
)

// view is what a terminal of that size shows, without its colours.
func view(m Model, width, height int) string {
	sized, _ := m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	lines := strings.Split(ansi.Strip(sized.View().Content), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n")
}

func after(m Model, all ...*news) Model {
	for _, n := range all {
		next, _ := m.Update(n)
		m = next.(Model)
	}
	return m
}

// TestView is the whole view of a fixed snapshot and a decision after it.
func TestView(t *testing.T) {
	m := after(NewModel("127.0.0.1:7420", time.UTC), first(0), then(released, evicted, 2, "10.0.0.1:3", "decoder", 12*mib, 18*mib),
		then(triptychv1alpha1.ResidencyEvent_ACTION_KEEP, 0, 0, "10.0.0.1:3", "decoder", 12*mib, 18*mib),
		far("job-1", 4, 1, at("denoiser", 6, 20), at("decoder", 0, 1)), far("job-2", 1, 0))
	want := strings.TrimPrefix(`
triptych top  127.0.0.1:7420  12:00:01

host/cpu:0  ██████████████░░░░░░░░░░░░░░░░  45%  18 MiB of 40 MiB used, at most 39 MiB
host/cpu:1  0 B used, at most 0 B, no budget
host  keeps 16 MiB of 20 MiB warm

STAGE     SERVICE     COMPONENT            STATE     WEIGHTS  DEVICE
encoder   10.0.0.1:1  -                    empty     -        host/cpu:1
denoiser  10.0.0.1:2  starter/unet         resident  17 MiB   host/cpu:0
decoder   10.0.0.1:3  starter/vae.decoder  warm      12 MiB   host/cpu:0
decoder   10.0.0.1:3  starter/vae.encoder  resident  8.0 MiB  host/cpu:0
decoder   10.0.0.1:3  tiny                 warm      3.0 MiB  host/cpu:0
decoder   10.0.0.1:3  turbo                dropping  1.0 MiB  host/cpu:0

JOB    STAGE     COMPONENT                        DOES   STEP             IMAGES  SINCE
job-1  denoiser  starter/unet                     works  ███░░░░░░░ 6/20  1/4     12:00:00
job-2  denoiser  starter/unet+starter/controlnet  waits  -                0/1     11:59:00

DECISIONS
12:00:01  keep     decoder starter/vae.decoder  12 MiB, 18 MiB of 40 MiB used: it is so
12:00:01  release  decoder starter/vae.decoder  12 MiB, 18 MiB of 40 MiB used: it is so`, "\n")
	if diff := cmp.Diff(want, view(m, 100, 24)); diff != "" {
		t.Error(diff)
	}
	for _, line := range strings.Split(view(m, 40, 6), "\n") {
		if n := ansi.StringWidth(line); n > 40 {
			t.Errorf("%d cells in a terminal of 40: %s", n, line)
		}
	}
	if n := strings.Count(view(m, 40, 6), "\n") + 1; n > 6 {
		t.Errorf("%d lines in a terminal of 6", n)
	}
}

// TestTurn follows a request and its weights through decisions, and the states before stay as they were.
func TestTurn(t *testing.T) {
	const den = "10.0.0.1:2"
	act := func(name string) action { return action(triptychv1alpha1.ResidencyEvent_Action_value["ACTION_"+name]) }
	s := State{}.Apply(first(0))
	for i, step := range []struct {
		news                *news
		weights, does, want string // state of the denoiser's weights, and what job-2 does
	}{
		{then(released, workDone, 1, den, "denoiser", mib, 29*mib), resident, waits, "job-2"},
		{then(act("EVICT"), 1, 3, den, "denoiser", 17*mib, 29*mib), evicting, waits, "job-2"},
		{then(act("EVICT"), failed, 3, den, "denoiser", 0, 29*mib), resident, waits, "job-2"},
		{then(act("EVICT"), 1, 3, den, "denoiser", 17*mib, 29*mib), evicting, waits, "job-2"},
		{then(released, evicted, 3, den, "denoiser", 17*mib, 12*mib), "", waits, "job-2"},
		{then(act("KEEP"), 0, 0, den, "denoiser", 17*mib, 12*mib), warm, waits, "job-2"},
		{then(act("DROP"), 0, 0, den, "denoiser", 17*mib, 12*mib), dropping, waits, "job-2"},
		{then(act("KEEP"), failed, 0, den, "denoiser", 17*mib, 12*mib), warm, waits, "job-2"},
		{then(act("RESERVE"), 0, 2, den, "denoiser", 18*mib, 30*mib), warm, loads, "job-2"},
		{then(act("LOAD"), 0, 2, den, "denoiser", 17*mib, 30*mib), loading, loads, "job-2"},
		{then(act("LOADED"), 0, 2, den, "denoiser", 17*mib, 30*mib), resident, loads, "job-2"},
		{then(act("GRANT"), 0, 2, den, "denoiser", 18*mib, 30*mib), resident, works, "job-2"},
		{then(act("LOST"), 0, 2, den, "denoiser", 18*mib, 12*mib), "", "", ""},
		{then(act("WAIT"), 0, 2, "", "denoiser", 18*mib, 12*mib), "", waits, "job-2"},
		{then(act("WITHDRAW"), 0, 2, "", "denoiser", 18*mib, 12*mib), "", "", ""},
		{then(act("PREFETCH"), 0, 0, den, "denoiser", 17*mib, 30*mib), prefetching, "", ""},
		{then(released, failed, 0, den, "denoiser", 17*mib, 12*mib), "", "", ""},
	} {
		old := s
		before := old.View("x", 200, 100, time.UTC)
		s = s.Apply(step.news)
		if now := old.View("x", 200, 100, time.UTC); now != before {
			t.Errorf("step %d changed the state before it:\n%s\n%s", i, before, now)
		}
		weights, bytes, does, job := "", int64(0), "", ""
		for _, c := range s.components {
			if c.service == den {
				weights, bytes = c.state, c.bytes
			}
		}
		for _, r := range s.requests {
			does, job = does+r.doing, job+r.job
		}
		if weights != step.weights || does != step.does || job != step.want || weights != "" && bytes != 17*mib {
			t.Errorf("after step %d the weights are %q of %d bytes and %q %q, want %q and %q %q", i, weights, bytes, job, does, step.weights, step.want, step.does)
		}
	}
	if d := s.devices[0]; d.used != 12*mib || d.peak != 39*mib {
		t.Errorf("the device is %+v", d)
	}
}

// TestLost: a snapshot after lost decisions replaces the state, keeps the decisions and says so.
func TestLost(t *testing.T) {
	m := after(NewModel("x", time.UTC), first(0), then(released, withdrawn, 1, "10.0.0.1:2", "denoiser", mib, 29*mib), first(7))
	got := view(m, 120, 40)
	for _, want := range []string{"DECISIONS  (7 came too fast to be seen)", "job-1  denoiser  starter/unet                     works", "12:00:01  release"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// TestProgress: what is told of a job replaces what was before, a snapshot does not, and an ended job is forgotten; the states
// before stay as they were.
func TestProgress(t *testing.T) {
	ended := far("job-1", 0, 0)
	ended.GetJob().Ended = true
	s := State{}.Apply(first(0))
	for i, c := range []struct {
		news         *news
		step, images string
	}{
		{far("job-2", 9, 8, at("denoiser", 7, 8)), "-", "-"},
		{far("job-1", 2, 0), "-", "0/2"},
		{far("job-1", 2, 0, at("denoiser", 0, 3)), "░░░░░░░░░░ 0/3", "0/2"},
		{far("job-1", 2, 1, at("encoder", 0, 1), at("denoiser", 3, 3)), "██████████ 3/3", "1/2"},
		{first(7), "██████████ 3/3", "1/2"},
		{far("job-1", 2, 1, at("denoiser", 9, -1)), "-", "1/2"},
		{far("job-1", 2, 1, at("denoiser", 900, 3)), "██████████ 900/3", "1/2"},
		{ended, "-", "-"},
	} {
		old, before := s, s.View("x", 200, 100, time.UTC)
		s = s.Apply(c.news)
		if now := old.View("x", 200, 100, time.UTC); now != before {
			t.Errorf("news %d changed the state before it:\n%s\n%s", i, before, now)
		}
		if step, images := s.progress(s.requests[0]); ansi.Strip(step) != c.step || images != c.images {
			t.Errorf("after news %d: %q and %q, want %q and %q", i, step, images, c.step, c.images)
		}
	}
	if len(s.jobs) != 1 || Line(far("job-1", 2, 1), time.UTC) != "" {
		t.Errorf("left are %v", s.jobs)
	}
}

// TestLine is what a log gets: one line, whatever the reason is made of.
func TestLine(t *testing.T) {
	n := then(released, evicted, 2, "10.0.0.1:3", "decoder", 12*mib, 18*mib)
	n.GetDecision().Event.Reason = "two\nlines\x1b[2J"
	want := "2026-01-02T12:00:01.000Z  release  decoder starter/vae.decoder  12 MiB, 18 MiB of 40 MiB used: two.lines.[2J  job job-2"
	if got := Line(n, time.UTC); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Line(first(0), time.UTC); got != "" {
		t.Errorf("%q for a first snapshot", got)
	}
	if got := Line(first(7), time.UTC); !strings.HasPrefix(got, "decisions ") || !strings.HasSuffix(got, ": 7") {
		t.Errorf("%q for lost decisions", got)
	}
}

// TestKeys: q quits, other keys do not.
func TestKeys(t *testing.T) {
	for text, quits := range map[string]bool{"q": true, "x": false} {
		_, cmd := NewModel("x", time.UTC).Update(tea.KeyPressMsg{Text: text, Code: rune(text[0])})
		if (cmd != nil) != quits {
			t.Errorf("%s quits: %v", text, cmd != nil)
		}
	}
}
