package pipeline_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func exhausted() *stage.Error {
	e := stage.DoesNotFit(stage.KindDenoiser, stagetest.Model, 1000, 10, 2000)
	e.Reason = stage.EngineOOMUnplanned
	return e
}

// TestOutOfMemory: work that finds the device out of memory is done once more, from its checkpoint, when all
// that was idle there has been evicted; the image is the same.
func TestOutOfMemory(t *testing.T) {
	spec := up(t).spec(t)
	quiet := up(t).good(t, spec)
	r := up(t)
	r.script(stage.KindDenoiser).Fail(stagetest.OpDenoise, 8, exhausted())
	j := r.good(t, spec)
	same(t, j, quiet)
	if w := only[pipeline.Warning](j); len(w) != 1 || w[0].Code != pipeline.OutOfMemory || !strings.Contains(w[0].Message, "1000 B") {
		t.Errorf("warnings %+v", w)
	}
	if d := r.Service(stage.KindDenoiser).Works("denoise"); len(d) != 2 || d[1].Resume == nil || d[1].Resume.Step != 5 {
		t.Errorf("%d denoises, not the second from step 5", len(d))
	}
	// The encoder, which was idle, was evicted before the denoiser was granted again.
	r.Events.Await(t, "the end", func(e residency.Event) bool { return e.Class == residency.WorkDone && e.Kind == stage.KindDecoder })
	var told []string
	for _, e := range r.Events.All() {
		switch {
		case e.Action == residency.Evict && e.Class == residency.OutOfMemory:
			told = append(told, "evict "+e.Kind.String())
		case e.Action == residency.Release && e.Class == residency.Evicted:
			told = append(told, "evicted "+e.Kind.String())
		case e.Action == residency.Grant && e.Kind == stage.KindDenoiser:
			told = append(told, "grant")
		}
	}
	evict, evicted := slices.Index(told, "evict encoder"), slices.Index(told, "evicted encoder")
	if last := slices.Index(told[1:], "grant") + 1; told[0] != "grant" || evict < 1 || evicted < evict || last < evicted {
		t.Errorf("decided %q", told)
	}
	r.idle(t)
}

// TestOutOfMemoryAgain: the second time it is the end, and the error has the numbers.
func TestOutOfMemoryAgain(t *testing.T) {
	r := over(fleettest.New(t, fleettest.Trio()...))
	var tries atomic.Int32
	r.Service(stage.KindDenoiser).Before = func(_ context.Context, call string) error {
		if call != "denoise" {
			return nil
		}
		tries.Add(1)
		return exhausted()
	}
	for _, s := range r.Services {
		s.Start()
	}
	j := r.run(t, r.spec(t))
	var e *stage.Error
	if !errors.As(j.err, &e) || e.Reason != stage.EngineOOMUnplanned || e.Metadata["needed_bytes"] != "1000" || e.Metadata["available_bytes"] != "10" || tries.Load() != 2 {
		t.Errorf("ended with %v after %d tries", j.err, tries.Load())
	}
	r.idle(t)
}
