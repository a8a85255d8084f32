package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestRun(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	j := r.good(t, spec)
	r.idle(t)

	events := j.events.All()
	if _, last := events[len(events)-2].(pipeline.Image); !last && len(only[pipeline.Image](j)) != 1 {
		t.Errorf("the image is not there: %T", events[len(events)-1])
	}
	steps := -1 // the first is that none is done
	for _, p := range only[pipeline.Progress](j) {
		if p.Kind == stage.KindDenoiser {
			if steps++; p.Step != steps || p.Steps != 12 {
				t.Errorf("%+v follows step %d", p, steps-1)
			}
		}
	}
	if steps != 12 {
		t.Errorf("%d steps were told", steps)
	}
	loads := map[stage.Kind]bool{}
	for _, l := range only[pipeline.Loading](j) {
		loads[l.Kind] = loads[l.Kind] || l.LoadedBytes == l.TotalBytes
	}
	if !loads[stage.KindEncoder] {
		t.Errorf("the first load was not told: %v", loads)
	}
	for _, e := range only[pipeline.Residency](j) {
		if e.Reason == "" || e.BudgetBytes == 0 && e.Device != "" || e.UsedBytes > e.BudgetBytes {
			t.Errorf("residency event %+v", e)
		}
	}
	var kinds []stage.Kind
	for _, u := range j.summary.Stages {
		kinds = append(kinds, u.Kind)
		if u.Running <= 0 || u.Queued < 0 || u.Loading < 0 || u.WeightsBytes != 4000 || u.ScratchBytes <= 0 || u.Queued+u.Loading+u.Running > j.summary.Total {
			t.Errorf("usage %+v of %v", u, j.summary.Total)
		}
	}
	if !slices.Equal(kinds, stage.Kinds()) || j.summary.PeakBytes < 4000 || j.summary.PeakBytes > stagetest.Budget {
		t.Errorf("summary %+v", j.summary)
	}
}

func TestPrompts(t *testing.T) {
	r := up(t)
	for name, c := range map[string]struct {
		guidance         float64
		prompt, negative string
		truncated        string
	}{
		"guided":             {4, "a boat", "fog", ""},
		"guided by nothing":  {1.5, "a boat", "", ""},
		"at 1":               {1, "a boat", "fog", ""},
		"at 0":               {0, "a boat", "fog", ""},
		"long":               {1, "1 2 3 4 5 6 7 8 9", "", "prompt: 1 token "},
		"long and guided":    {4, "1 2 3 4 5 6 7 8 9", "", "prompt: 1 token "},
		"negative, too long": {4, "x", "1 2 3 4 5 6 7 8 9 10", "negative_prompt: 2 tokens "},
	} {
		spec := r.spec(t).with("guidance_scale", stage.FloatOption(c.guidance)).with("prompt", stage.TextOption(c.prompt)).with("negative_prompt", stage.TextOption(c.negative))
		j := r.good(t, spec)
		encodes := r.Service(stage.KindEncoder).Works("encode")
		got, want := encodes[len(encodes)-1].Options, spec.Options.Of([]string{"prompt", "negative_prompt", "guidance_scale"})
		if !maps.Equal(got, want) || len(encodes[len(encodes)-1].Values) > 0 {
			t.Errorf("%s: the encoder got %v, want %v", name, got, want)
		}
		var warned string
		for _, w := range only[pipeline.Warning](j) {
			warned += w.Code + " " + w.Message
		}
		if (warned == "") != (c.truncated == "") || c.truncated != "" && !strings.HasPrefix(warned, "PROMPT_TRUNCATED "+c.truncated) {
			t.Errorf("%s: warned %q", name, warned)
		}
	}
}

// TestSeeds: image i of a request is the image of a request with seed + i, and behind the largest
// seed comes 0.
func TestSeeds(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	spec.ImageCount, spec.Seed = 3, math.MaxUint64-1
	many := r.good(t, spec)
	for i, seed := range []uint64{math.MaxUint64 - 1, math.MaxUint64, 0} {
		spec.ImageCount, spec.Seed = 1, seed
		one := r.good(t, spec)
		if !slices.Equal(one.images()[0], many.images()[i]) {
			t.Errorf("image %d is not that of seed %d", i, seed)
		}
		for _, got := range only[pipeline.Image](many) { // they may be ready in any order
			if got.Index == i && got.Seed != seed {
				t.Errorf("image %d is told with seed %d", i, got.Seed)
			}
		}
	}
}

// TestStagesOverlap: the second job is encoded while the first denoises, and its denoise waits.
func TestStagesOverlap(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	gate := r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 3)
	first := r.start(fleettest.Soon(t), "first", spec)
	entered(t, gate)
	second := r.start(fleettest.Soon(t), "second", spec)
	second.events.Await(t, "the second job's encode", func(e pipeline.Event) bool {
		p, ok := e.(pipeline.Progress)
		return ok && p.Kind == stage.KindEncoder && p.Step == 1
	})
	second.events.Await(t, "the second job's place", func(e pipeline.Event) bool {
		q, ok := e.(pipeline.Queued)
		return ok && q.Kind == stage.KindDenoiser && q.Position == 1
	})
	gate.Release()
	<-first.done
	<-second.done
	if first.err != nil || second.err != nil {
		t.Fatal(first.err, second.err)
	}
	same(t, second, first)
}

// TestImagesOverlap: an image is decoded while the next denoises.
func TestImagesOverlap(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	spec.ImageCount = 2
	gate := r.script(stage.KindDecoder).Hold(stagetest.OpDecode, 1)
	j := r.start(fleettest.Soon(t), "job", spec)
	entered(t, gate)
	j.events.Await(t, "the end of the second denoise", func(e pipeline.Event) bool {
		p, ok := e.(pipeline.Progress)
		return ok && p.Kind == stage.KindDenoiser && p.Image == 1 && p.Step == p.Steps
	})
	gate.Release()
	if <-j.done; j.err != nil {
		t.Fatal(j.err)
	}
}

// TestAhead: while an image is not told of, no more than four behind it are begun.
func TestAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := up(t)
		spec := r.spec(t)
		spec.ImageCount = 8
		gate := r.script(stage.KindDecoder).Hold(stagetest.OpDecode, 1)
		j := r.start(fleettest.Soon(t), "job", spec)
		entered(t, gate)
		time.Sleep(time.Second) // of the bubble's
		synctest.Wait()
		if n := len(r.Service(stage.KindDenoiser).Works("denoise")); n != 5 {
			t.Errorf("%d images were denoised while the first is decoded", n)
		}
		gate.Release()
		if <-j.done; j.err != nil {
			t.Fatal(j.err)
		}
	})
}

// TestOneAfterAnother: a job takes one denoiser at a time, however many there are.
func TestOneAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		r := pairs(t, nil)
		spec := r.spec(t)
		spec.ImageCount = 2
		gate := r.Service(kind).Script.Hold(stagetest.OpDenoise, 2)
		j := r.start(fleettest.Soon(t), "job", spec)
		entered(t, gate)
		time.Sleep(time.Second) // of the bubble's
		synctest.Wait()
		if n := len(r.second(kind).Works("denoise")); n > 0 {
			t.Errorf("the second denoiser works as well")
		}
		gate.Release()
		if <-j.done; j.err != nil {
			t.Fatal(j.err)
		}
	})
}

// TestFailureEndsAll: when a part of a job fails, Run returns that error once nothing of the job is
// left, and the next job is served.
func TestFailureEndsAll(t *testing.T) {
	for _, failing := range []stage.Kind{stage.KindDenoiser, stage.KindDecoder} {
		t.Run(failing.String(), func(t *testing.T) {
			r := up(t)
			spec := r.spec(t)
			spec.ImageCount = 3
			denoises, decodes := r.script(stage.KindDenoiser), r.script(stage.KindDecoder)
			first, decode := denoises.Hold(stagetest.OpDenoise, 1), decodes.Hold(stagetest.OpDecode, 1)
			j := r.start(fleettest.Soon(t), "job", spec)
			entered(t, first)
			second := denoises.Hold(stagetest.OpDenoise, 1)
			first.Release()
			entered(t, decode) // of image 0, while
			entered(t, second) // image 1 denoises
			fault := stage.Errorf(stage.EngineFault, "scripted fault")
			if failing == stage.KindDenoiser {
				denoises.Fail(stagetest.OpDenoise, 2, fault)
				second.Release()
			} else {
				decodes.Fail(stagetest.OpDecode, 2, fault)
				decode.Release()
			}
			if <-j.done; stage.ReasonOf(j.err) != stage.EngineFault {
				t.Errorf("ended with %v", j.err)
			}
			r.idle(t)
			r.good(t, r.spec(t))
		})
	}
}

func TestCancel(t *testing.T) {
	for _, kind := range stage.Kinds() {
		t.Run(kind.String(), func(t *testing.T) {
			r := up(t)
			spec := r.spec(t)
			op, step := ops[kind], 2
			gate := r.script(kind).Hold(op, step)
			ctx, cancel := context.WithCancel(fleettest.Soon(t))
			j := r.start(ctx, "job", spec)
			entered(t, gate)
			cancel()
			if <-j.done; !errors.Is(j.err, context.Canceled) {
				t.Errorf("ended with %v", j.err)
			}
			r.idle(t)
			gate.Release()
			if got := r.script(kind).Steps(op); got != step {
				t.Errorf("%d steps were begun, cancelled at %d", got, step)
			}
			r.good(t, spec)
		})
	}
}

// TestCancelWhileWaiting: for the load, and for the stage.
func TestCancelWhileWaiting(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	gate := r.script(stage.KindEncoder).Hold(stagetest.OpLoad, 2)
	loading, cancelLoading := context.WithCancel(fleettest.Soon(t))
	first := r.start(loading, "first", spec)
	entered(t, gate)
	waiting, cancelWaiting := context.WithCancel(fleettest.Soon(t))
	second := r.start(waiting, "second", spec)
	second.events.Await(t, "the wait", func(e pipeline.Event) bool { _, ok := e.(pipeline.Queued); return ok })
	cancelWaiting()
	<-second.done
	cancelLoading()
	<-first.done
	if !errors.Is(first.err, context.Canceled) || !errors.Is(second.err, context.Canceled) {
		t.Errorf("ended with %v and %v", first.err, second.err)
	}
	gate.Release()
	r.idle(t)
	r.good(t, spec)
}

func TestDoesNotFit(t *testing.T) {
	r := up(t)
	j := r.run(t, r.of(t, stagetest.TooLarge))
	var e *stage.Error
	if !errors.As(j.err, &e) || e.Reason != stage.ModelDoesNotFit || e.Metadata["needed_bytes"] == "" || e.Metadata["budget_bytes"] == "" {
		t.Errorf("ended with %v", j.err)
	}
	for _, kind := range stage.Kinds() {
		if n := r.script(kind).Steps(stagetest.OpLoad); n > 0 {
			t.Errorf("the %v loaded", kind)
		}
	}
}

// TestStreams: a stage that does not fit as a whole is asked to load within what its scratch leaves of the budget, and is
// told so in one event; the images are the same. What does not fit even so is refused with the smallest budget.
func TestStreams(t *testing.T) {
	whole := up(t)
	spec := whole.spec(t)
	want := whole.good(t, spec)
	const kind = stage.KindDecoder // has the most scratch
	scratch := takes(whole.planned(t, spec), stagetest.OpDecode).ScratchBytes
	limited := func(budget int64) *rig {
		r := fleettest.New(t, fleettest.Trio()...)
		for _, s := range r.Services {
			s.Edit(func(i *stage.Info) { i.MemoryBudgetBytes = budget })
			s.Start()
		}
		r.Known(t)
		return over(r)
	}
	for _, c := range []struct{ weights, keeps int64 }{{4000, 4000}, {3999, 3500}, {2100, 2000}, {1000, 1000}} {
		budget := c.weights + scratch
		r := limited(budget)
		got := r.good(t, spec)
		same(t, got, want)
		r.Events.Await(t, "the decoder's work is over", func(e residency.Event) bool { return e.Kind == kind && e.Action == residency.Release })
		told := 0
		for _, e := range r.Events.All() {
			if e.UsedBytes > budget {
				t.Errorf("within %d: %+v", budget, e)
			}
			if e.Kind == kind && (e.Action == residency.Load || e.Action == residency.Prefetch) {
				if told++; e.Bytes != c.keeps || strings.Contains(e.Reason, "streamed") != (c.keeps < 4000) {
					t.Errorf("within %d: %+v", budget, e)
				}
			}
		}
		if told != 1 {
			t.Errorf("within %d the %v was loaded %d times", budget, kind, told)
		}
	}
	r := limited(999 + scratch)
	j := r.run(t, spec)
	var e *stage.Error
	if !errors.As(j.err, &e) || e.Reason != stage.ModelDoesNotFit || e.Metadata["least_budget_bytes"] != fmt.Sprint(1000+scratch) || !strings.HasSuffix(e.Message, " is "+stage.SizeUp(1000+scratch)) {
		t.Errorf("below the smallest budget: %v", j.err)
	}
	if j := limited(1000+scratch).run(t, spec); j.err != nil {
		t.Errorf("in the smallest budget: %v", j.err)
	}
}

// A job whose scratch leaves less of the budget than the one before it has the decoder loaded anew, within less.
func TestStreamsWithinLess(t *testing.T) {
	r := fleettest.New(t, fleettest.Trio()...)
	wide := over(r)
	for _, s := range r.Services {
		s.Edit(func(i *stage.Info) { i.MemoryBudgetBytes = 8000 })
		s.Start()
	}
	r.Known(t)
	sized := func(side int64) request {
		return wide.spec(t).with("width", stage.IntOption(side)).with("height", stage.IntOption(side))
	}
	wide.good(t, sized(8))
	// Without its other stages, whose needs would have the decoder evicted first.
	lease, err := r.Keeper.Acquire(fleettest.Soon(t), residency.AcquireRequest{Need: decoder(wide.planned(t, sized(32)))})
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
	r.Events.Await(t, "an eviction for scratch", func(e residency.Event) bool {
		return e.Action == residency.Evict && e.Kind == stage.KindDecoder && strings.Contains(e.Reason, "leave too little")
	})
	wide.idle(t)
}
