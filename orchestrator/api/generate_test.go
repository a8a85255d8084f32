package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestGenerate(t *testing.T) {
	r := up(t, nil)
	s := small()
	s.Seed, s.ImageCount = ptr(uint64(math.MaxUint64)), ptr(int32(2))
	before := time.Now()
	events, err := r.generate(t, s)
	if err != nil {
		t.Fatal(err)
	}
	accepted, completed := events[0].GetAccepted(), events[len(events)-1].GetCompleted()
	if accepted == nil || completed == nil {
		t.Fatalf("from %v to %v", events[0], events[len(events)-1])
	}
	if _, err := uuid.Parse(accepted.GetRequestId()); err != nil {
		t.Errorf("request id %q: %v", accepted.GetRequestId(), err)
	}
	seeds := map[int32]uint64{}
	for i, e := range events {
		if e.GetSequence() != uint64(i+1) {
			t.Errorf("event %d has sequence %d", i, e.GetSequence())
		}
		if at := e.GetTime().AsTime(); at.Before(before) || at.After(time.Now()) {
			t.Errorf("event %d is of %v", i, at)
		}
		if image := e.GetImageReady(); image != nil {
			seeds[image.GetImageIndex()] = image.GetSeed()
			if sum := sha256.Sum256(image.GetData()); !bytes.Equal(sum[:], image.GetSha256()) || image.GetMimeType() != "image/png" || image.GetWidthPx() != 32 {
				t.Errorf("image %d: %d bytes of %s, %d pixels wide", image.GetImageIndex(), len(image.GetData()), image.GetMimeType(), image.GetWidthPx())
			}
		}
		if d := e.GetResidency(); d != nil && (d.GetReason() == "" || d.GetAction() == 0 || d.GetUsedBytes() > d.GetBudgetBytes()) {
			t.Errorf("residency %v", d)
		}
	}
	if len(seeds) != 2 || seeds[0] != math.MaxUint64 || seeds[1] != 0 {
		t.Errorf("seeds %v", seeds)
	}
	if len(completed.GetStages()) != 3 || completed.GetStages()[1].GetStage() != "denoiser" || completed.GetTotal().AsDuration() <= 0 || completed.GetPeakBytes() <= 0 {
		t.Errorf("completed %v", completed)
	}
}

// TestLargeImage: what exceeds a message comes in parts, whole and in order.
func TestLargeImage(t *testing.T) {
	for _, size := range []int{maxInline - 1, maxInline, maxInline + 1, 3*maxInline + 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			file := make([]byte, size)
			for i := range file {
				file[i] = byte(rand.Uint32())
			}
			f := fleettest.New(t, fleettest.Trio()...)
			f.Service(stage.KindDecoder).Made = func(i *stage.File) { i.Data = file }
			for _, s := range f.Services {
				s.Start()
			}
			events, err := over(t, f, nil).generate(t, small())
			if err != nil {
				t.Fatal(err)
			}
			var got, sum []byte
			var told int64
			for _, e := range events {
				if i := e.GetImageReady(); i != nil {
					got, sum, told = i.GetData(), i.GetSha256(), i.GetSizeBytes()
				}
				if c := e.GetImageChunk(); c != nil {
					if c.GetOffset() != int64(len(got)) || len(c.GetData()) > maxInline {
						t.Errorf("a chunk of %d bytes at %d follows %d", len(c.GetData()), c.GetOffset(), len(got))
					}
					got = append(got, c.GetData()...)
				}
			}
			if want := sha256.Sum256(file); !bytes.Equal(got, file) || !bytes.Equal(sum, want[:]) || told != int64(size) {
				t.Errorf("%d bytes came, %d were told", len(got), told)
			}
		})
	}
}

// TestPace: who finds no place hears when one is likely to be free.
func TestPace(t *testing.T) {
	var p pace
	if got := p.next(4); got != shortestRetry {
		t.Errorf("before anything is measured: %v", got)
	}
	for range 50 {
		p.spent(40 * time.Second)
	}
	if got := p.next(4); got != 10*time.Second {
		t.Errorf("with 4 places held 40 s each: %v", got)
	}
	for range 50 {
		p.spent(time.Hour)
	}
	if got := p.next(4); got != longestRetry {
		t.Errorf("with places held an hour: %v", got)
	}
}

func TestQueueFull(t *testing.T) {
	r := up(t, func(s *Service) { s.places = make(chan struct{}, 1) })
	gate := r.Service(stage.KindDenoiser).Script.Hold(stagetest.OpDenoise, 1)
	first := r.start(fleettest.Soon(t), t, small())
	<-gate.Entered()
	_, err := r.generate(t, small())
	refused(t, err, codes.ResourceExhausted, stage.QueueFull)
	if after := retry(err); after < shortestRetry || after > longestRetry {
		t.Errorf("to be tried again after %v", after)
	}
	gate.Release()
	if _, err := rest(first); err != nil {
		t.Fatal(err)
	}
	r.finished(t)
	if _, err := r.generate(t, small()); err != nil {
		t.Errorf("once there is a place: %v", err)
	}
}

// largeImages is a fleet whose images fill half a message, and tells of each that is made.
func largeImages(t *testing.T) (f *fleettest.Rig, made chan struct{}) {
	f, made = fleettest.New(t, fleettest.Trio()...), make(chan struct{}, maxImages)
	f.Service(stage.KindDecoder).Made = func(i *stage.File) {
		i.Data = make([]byte, maxInline/2)
		made <- struct{}{}
	}
	for _, s := range f.Services {
		s.Start()
	}
	return f, made
}

// TestSlowReader: a caller that reads late or slowly gets every image, though the queue has room for two, and the last word.
func TestSlowReader(t *testing.T) {
	for name, change := range map[string]func(*Service){
		"bytes":  func(s *Service) { s.limits.bytes = maxInline },
		"events": func(s *Service) { s.limits.events = 8 },
	} {
		t.Run(name, func(t *testing.T) {
			f, made := largeImages(t)
			r := over(t, f, change)
			s := small()
			s.ImageCount = ptr(int32(12))
			stream := r.start(fleettest.Soon(t), t, s)
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			for range 5 { // more than the queue has room for
				<-made
			}
			events, err := rest(stream)
			if err != nil || events[len(events)-1].GetCompleted() == nil {
				t.Fatalf("ended with %v", err)
			}
			got := map[int32]int{}
			for _, e := range events {
				if i := e.GetImageReady(); i != nil {
					got[i.GetImageIndex()] += len(i.GetData())
				}
			}
			for i := range s.GetImageCount() {
				if got[i] != maxInline/2 {
					t.Errorf("image %d has %d bytes", i, got[i])
				}
			}
			r.Unleased(t)
		})
	}
}

// TestSlowConsumer: a caller that does not read is cut off, and what it holds up is bounded.
func TestSlowConsumer(t *testing.T) {
	for name, change := range map[string]func(*Service){
		"bytes":        func(s *Service) { s.limits.bytes, s.SendTimeout = maxInline, 100*time.Millisecond },
		"the last few": func(s *Service) { s.SendTimeout = time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := largeImages(t)
			r := over(t, f, func(s *Service) {
				s.places = make(chan struct{}, 1)
				change(s)
			})
			s := small()
			s.ImageCount = ptr(int32(8)) // far more than the windows hold
			stream := r.start(fleettest.Soon(t), t, s)
			var events []*response
			_, err := stream.Recv()
			r.finished(t)   // although nothing more is read
			if err == nil { // else it was cut off before the first event was on its way
				events, err = rest(stream)
			}
			refused(t, err, codes.ResourceExhausted, stage.SlowConsumer)
			for i, e := range events {
				if e.GetSequence() != uint64(i+2) || e.GetCompleted() != nil {
					t.Errorf("event %d: %v", e.GetSequence(), e)
				}
			}
			r.Unleased(t)
			s.ImageCount = nil
			if _, err := r.generate(t, s); err != nil && name == "bytes" { // the other limits are too small for any
				t.Errorf("a request that is read: %v", err)
			}
		})
	}
}

// TestCallerGone: the work stops within a step, and the place is free.
func TestCallerGone(t *testing.T) {
	r := up(t, func(s *Service) { s.places = make(chan struct{}, 1) })
	script := r.Service(stage.KindDenoiser).Script
	gate := script.Hold(stagetest.OpDenoise, 3)
	ctx, cancel := context.WithCancel(fleettest.Soon(t))
	stream := r.start(ctx, t, small())
	<-gate.Entered()
	cancel()
	if _, err := rest(stream); status.Code(err) != codes.Canceled {
		t.Errorf("ended with %v", err)
	}
	r.finished(t)
	r.Unleased(t)
	if n := script.Steps(stagetest.OpDenoise); n != 3 {
		t.Errorf("ended after %d steps", n)
	}
}

// TestSendFails: a message that cannot be sent ends the work at once, and is the error.
func TestSendFails(t *testing.T) {
	r := up(t, nil)
	gate := r.Service(stage.KindDenoiser).Script.Hold(stagetest.OpDenoise, 3)
	failure := errors.New("cannot be marshalled")
	ctx := fleettest.Soon(t)
	err := r.service.generate(ctx, "id", small(), &End{}, func(*response) error {
		<-gate.Entered()
		return failure
	})
	if !errors.Is(err, failure) || ctx.Err() != nil {
		t.Errorf("ended with %v, late: %v", err, ctx.Err())
	}
	r.Unleased(t)
}

// TestDeadline: the caller hears in time what it waited for.
func TestDeadline(t *testing.T) {
	r := up(t, nil)
	if _, err := r.generate(t, small()); err != nil {
		t.Fatal(err)
	}
	late := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := rest(r.start(ctx, t, small()))
		return err
	}
	r.Service(stage.KindDenoiser).Script.Hold(stagetest.OpDenoise, 2)
	refused(t, late(), codes.DeadlineExceeded, "")
	if err := r.Service(stage.KindDecoder).Stop(); err != nil {
		t.Fatal(err)
	}
	err := late()
	refused(t, err, codes.Unavailable, stage.StageUnreachable)
	if got := info(err).GetMetadata()["stage"]; got != "decoder" {
		t.Errorf("the stage that is missing is %q", got)
	}
}

// TestFailures: what a stage fails with reaches the caller, after what came before.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		code   codes.Code
		reason stage.Reason
	}{
		"a fault":      {stage.Errorf(stage.EngineFault, "scripted").With("stage", "denoiser"), codes.Internal, stage.EngineFault},
		"no memory":    {stage.Errorf(stage.EngineOOMUnplanned, "scripted"), codes.Internal, stage.EngineOOMUnplanned},
		"a bad tensor": {stage.Errorf(stage.TensorInvalid, "scripted"), codes.InvalidArgument, stage.TensorInvalid},
		"no reason":    {fmt.Errorf("/secret/path"), codes.Internal, stage.EngineFault},
	} {
		r := up(t, nil)
		for step := range 2 { // out of memory is tried once more
			r.Service(stage.KindDenoiser).Script.Fail(stagetest.OpDenoise, step+1, c.err)
		}
		events, err := r.generate(t, small())
		refused(t, err, c.code, c.reason)
		if c.code == codes.Internal && info(err).GetMetadata()["incident_id"] == "" {
			t.Errorf("%s: no incident: %v", name, info(err))
		}
		if len(events) == 0 || events[0].GetAccepted() == nil || events[len(events)-1].GetSequence() != uint64(len(events)) {
			t.Errorf("%s: %d events came before", name, len(events))
		}
		if bytes.Contains([]byte(err.Error()), []byte("secret")) {
			t.Errorf("%s: tells %v", name, err)
		}
	}
}

func TestPreviews(t *testing.T) {
	r := up(t, nil)
	gate := r.Service(stage.KindDenoiser).Script.Hold(stagetest.OpDenoise, 5)
	s := small()
	s.Preview = everyStep()
	stream := r.start(fleettest.Soon(t), t, s)
	for {
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if p := e.GetPreview(); p != nil {
			if p.GetMimeType() != "image/png" || len(p.GetData()) == 0 || p.GetStep() < 1 {
				t.Errorf("preview of step %d: %d bytes of %s", p.GetStep(), len(p.GetData()), p.GetMimeType())
			}
			break
		}
	}
	gate.Release()
	if _, err := rest(stream); err != nil {
		t.Fatal(err)
	}
}

func TestBeforeDeadline(t *testing.T) {
	if _, ok := ended(t, 0); ok {
		t.Error("a deadline came from nowhere")
	}
	for left, margin := range map[time.Duration]time.Duration{time.Hour: maxMargin, time.Second: 100 * time.Millisecond} {
		got, ok := ended(t, left)
		if !ok || got < margin-margin/10 || got > margin {
			t.Errorf("%v before the deadline with %v left, want %v", got, left, margin)
		}
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	defer cancel()
	late, stop := beforeDeadline(ctx)
	defer stop()
	if late.Err() == nil {
		t.Error("a deadline that is over came back")
	}
}

// ended is how long before its deadline a context with so much left ends.
func ended(t *testing.T, left time.Duration) (time.Duration, bool) {
	ctx := t.Context()
	if left > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	early, stop := beforeDeadline(ctx)
	defer stop()
	last, _ := ctx.Deadline()
	first, ok := early.Deadline()
	return last.Sub(first), ok
}
