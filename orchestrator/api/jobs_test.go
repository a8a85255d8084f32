package api

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// brief writes a job without its id and model.
func brief(p *triptychv1alpha1.JobProgress) string {
	if p.GetEnded() {
		return "ended"
	}
	out := fmt.Sprintf("%d/%d", p.GetImagesDone(), p.GetImages())
	for _, w := range p.GetWork() {
		out += fmt.Sprintf(" %s %d %d/%d", w.GetStage(), w.GetImageIndex(), w.GetStep(), w.GetSteps())
	}
	return out
}

// TestWatchJobs: who asks for it is told how far a job is, also one who comes later, and that it has ended.
func TestWatchJobs(t *testing.T) {
	r := up(t, nil)
	gate := r.Service(stage.KindDenoiser).Script.Hold(stagetest.OpDenoise, 3)
	last := r.Service(stage.KindDecoder).Script.Hold(stagetest.OpDecode, 1)
	watch := func() (next func() *triptychv1alpha1.JobProgress) {
		stream, err := r.memory.WatchResidency(fleettest.Soon(t), &triptychv1alpha1.WatchResidencyRequest{Jobs: true})
		if err != nil {
			t.Fatal(err)
		}
		if recv(t, stream).GetSnapshot() == nil {
			t.Fatal("the first news is no snapshot")
		}
		return func() *triptychv1alpha1.JobProgress {
			for {
				if p := recv(t, stream).GetJob(); p != nil {
					return p
				}
			}
		}
	}
	until := func(next func() *triptychv1alpha1.JobProgress, want string) (p *triptychv1alpha1.JobProgress) {
		t.Helper()
		var told []string
		for p = next(); !regexp.MustCompile(want).MatchString(brief(p)); p = next() {
			if told = append(told, brief(p)); p.GetEnded() {
				t.Fatalf("the job was never %s, but %q", want, told)
			}
		}
		return p
	}
	first := watch()
	s := small()
	s.ImageCount = ptr(int32(2))
	job := r.start(fleettest.Soon(t), t, s)
	<-gate.Entered()
	p := until(first, "^0/2 denoiser 0 2/6$")
	second := watch()
	if late := second(); brief(late) != brief(p) || late.GetJob() != p.GetJob() || late.GetModel() != stagetest.Model {
		t.Errorf("one who came later hears %v, want %v", late, p)
	}
	gate.Release()
	<-last.Entered()
	until(first, "^0/2( decoder [01] 0/1)+$") // either image may come first, and no step is left
	last.Release()
	events, err := rest(job)
	if err != nil {
		t.Fatal(err)
	}
	for _, next := range []func() *triptychv1alpha1.JobProgress{first, second} {
		for p = next(); !p.GetEnded(); p = next() {
		}
		if p.GetJob() != events[0].GetAccepted().GetRequestId() {
			t.Errorf("%v, the job is %s", p, events[0].GetAccepted().GetRequestId())
		}
	}
}

// TestJobsPace: however often a job gets further, one who watches hears of it four times a second and of the latest; one who does
// not read holds up nobody.
func TestJobsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJobs()
		spec := pipeline.Spec{Model: "m", ImageCount: 1}
		j.begin("a", spec)
		ctx, cancel := context.WithCancel(t.Context())
		var told []string
		stuck := make(chan struct{})
		ended := make(chan error, 2)
		go func() {
			ended <- j.follow(ctx, func(p *triptychv1alpha1.JobProgress) error {
				told = append(told, brief(p))
				return nil
			})
		}()
		go func() {
			ended <- j.follow(ctx, func(*triptychv1alpha1.JobProgress) error {
				<-stuck
				return errors.New("gone")
			})
		}()
		const steps = 200
		for i := range steps {
			j.hear("a", pipeline.Progress{Kind: stage.KindDenoiser, Step: i, Steps: steps + 1})
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(told); n < 8 || n > 10 || told[n-1] != "0/1 denoiser 0 199/201" {
			t.Errorf("%d were told in 2 s: %v", n, told)
		}
		j.hear("a", pipeline.Progress{Kind: stage.KindDenoiser, Step: steps + 1, Steps: steps + 1})
		j.hear("a", pipeline.Image{})
		j.end("a")
		j.begin("b", spec)
		j.end("b")
		time.Sleep(time.Second)
		synctest.Wait()
		if told[len(told)-1] != "ended" || len(told) > 11 {
			t.Errorf("at the end were told %v", told)
		}
		n := len(told)
		j.begin("c", spec) // another, which is over before anybody hears of it
		j.end("c")
		time.Sleep(time.Second)
		synctest.Wait()
		if len(told) != n {
			t.Errorf("nothing is new, and told was %v", told[n:])
		}
		close(stuck)
		if err := <-ended; err == nil || err.Error() != "gone" {
			t.Errorf("a failed reader ends with %v", err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) || len(j.readers) != 0 || len(j.all) != 0 {
			t.Errorf("%v, %d readers and %d jobs are left", err, len(j.readers), len(j.all))
		}
	})
}

// TestJobsHear: what is at work is told in pipeline order, and no more once it is done.
func TestJobsHear(t *testing.T) {
	j := newJobs()
	j.begin("a", pipeline.Spec{ImageCount: 3})
	for i, c := range []struct {
		event pipeline.Event
		want  string
	}{
		{pipeline.Progress{Kind: stage.KindEncoder, Steps: 1}, "0/3 encoder 0 0/1"},
		{pipeline.Progress{Kind: stage.KindEncoder, Step: 1, Steps: 1}, "0/3"},
		{pipeline.Progress{Kind: stage.KindDecoder, Steps: 1}, "0/3 decoder 0 0/1"},
		{pipeline.Progress{Kind: stage.KindDenoiser, Image: 1, Steps: 4}, "0/3 denoiser 1 0/4 decoder 0 0/1"},
		{pipeline.Progress{Kind: stage.KindDenoiser, Image: 1, Step: 3, Steps: 4}, "0/3 denoiser 1 3/4 decoder 0 0/1"},
		{pipeline.Queued{}, "0/3 denoiser 1 3/4 decoder 0 0/1"},
		{pipeline.Progress{Kind: stage.KindDecoder, Step: 1, Steps: 1}, "0/3 denoiser 1 3/4"},
		{pipeline.Image{}, "1/3 denoiser 1 3/4"},
		{pipeline.Image{Index: 1, Units: 2}, "1/3 denoiser 1 3/4"},
		{pipeline.Image{Index: 1, Unit: 1, Units: 2}, "2/3 denoiser 1 3/4"},
	} {
		before := j.all["a"]
		was := brief(before)
		j.hear("a", c.event)
		if got := brief(j.all["a"]); got != c.want {
			t.Errorf("after event %d: %q, want %q", i, got, c.want)
		}
		if brief(before) != was {
			t.Errorf("event %d changed what may be being sent", i)
		}
	}
}
