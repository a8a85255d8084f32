package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// named is the API over names, behind which there is one service of each kind, or none of the denoiser.
type named struct {
	*rig
	dns      *fleettest.DNS
	denoiser *fleettest.Service
}

func overNames(t *testing.T) *named {
	t.Helper()
	s := &named{dns: &fleettest.DNS{}, denoiser: fleettest.At(stage.KindDenoiser, "10.0.2.1:7422")}
	encoder, decoder := fleettest.At(stage.KindEncoder, "10.0.1.1:7421"), fleettest.At(stage.KindDecoder, "10.0.3.1:7423")
	encoder.Start()
	decoder.Start()
	s.dns.Set("encoder", "10.0.1.1")
	s.dns.Set("decoder", "10.0.3.1")
	s.rig = over(t, fleettest.Named(t, s.dns, encoder, s.denoiser, decoder), nil)
	s.pass()
	return s
}

// pass lets the fleet notice what is behind the names.
func (s *named) pass() {
	time.Sleep(3 * time.Second) // of the bubble
	synctest.Wait()
}

func (s *named) in() {
	s.denoiser.Start()
	s.dns.Set("denoiser", "10.0.2.1")
	s.pass()
}

func (s *named) out(t *testing.T) {
	t.Helper()
	s.dns.Set("denoiser")
	if err := s.denoiser.Stop(); err != nil {
		t.Error(err)
	}
	s.pass()
}

// words are events in short, those that repeat once, without the moment in which a service that is listed has not answered.
func words(events []*response) []string {
	var out []string
	for _, e := range events {
		switch e := e.GetEvent().(type) {
		case *triptychv1alpha1.GenerateResponse_Accepted:
			out = append(out, "accepted "+e.Accepted.GetSpec().GetModel())
		case *triptychv1alpha1.GenerateResponse_Queued:
			out = append(out, strings.TrimSpace(fmt.Sprintf("queued %s %s", e.Queued.GetStage(), e.Queued.GetReason())))
		case *triptychv1alpha1.GenerateResponse_Progress:
			out = append(out, e.Progress.GetStage())
		case *triptychv1alpha1.GenerateResponse_Completed:
			out = append(out, "completed")
		}
	}
	return slices.Compact(slices.DeleteFunc(out, func(s string) bool {
		return strings.HasPrefix(s, "queued") && (strings.Count(s, " ") == 1 || strings.Contains(s, "has not answered yet"))
	}))
}

const waits = "queued denoiser no denoiser service that has the model answers; no address behind denoiser:7422"

// call is a request that waits or has ended.
type call struct {
	events fleettest.Record[*response]
	done   chan struct{}
	err    error
}

func (s *named) call(ctx context.Context, t *testing.T, of *spec) *call {
	t.Helper()
	c := &call{done: make(chan struct{})}
	stream := s.start(ctx, t, of)
	go func() {
		defer close(c.done)
		for {
			e, err := stream.Recv()
			if err != nil {
				c.err = err
				return
			}
			c.events.Add(e)
		}
	}()
	s.pass()
	return c
}

func (c *call) tells(t *testing.T, want ...string) {
	t.Helper()
	if got := words(c.events.All()); !slices.Equal(got, want) {
		t.Errorf("told is %q, want %q", got, want)
	}
}

// lacks fails unless so many requests wait that the keeper does not know, for a model that is known or not.
func (s *named) lacks(t *testing.T, models ...string) {
	t.Helper()
	var got []string
	for _, u := range s.service.Unplanned() {
		got = append(got, u.Model)
	}
	if !slices.Equal(got, models) {
		t.Errorf("not planned are requests of %q, want %q", got, models)
	}
}

// TestWaitsForStage: a request waits for a stage without services, visibly, and is made once there is one: whether nothing was known of
// the stage, or its models, or the plan as well.
func TestWaitsForStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overNames(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		unknown := s.call(ctx, t, small())
		unknown.tells(t, waits)
		s.lacks(t, "")
		s.in()
		made := []string{"accepted tiny", "encoder", "denoiser", "decoder", "completed"}
		<-unknown.done
		unknown.tells(t, append([]string{waits}, made...)...)
		s.lacks(t)
		s.out(t)

		other := small()
		other.WidthPx = ptr(int32(64))
		unplanned := s.call(ctx, t, other)
		unplanned.tells(t, "accepted tiny", waits)
		s.lacks(t, "tiny")
		planned := s.call(ctx, t, small())
		planned.tells(t, "accepted tiny", "encoder", waits)
		if n := len(s.Keeper.Snapshot().Waiting); n != 1 {
			t.Errorf("%d requests wait in the keeper", n)
		}
		s.in()
		<-unplanned.done
		unplanned.tells(t, append([]string{"accepted tiny", waits}, made[1:]...)...)
		if all := unplanned.events.All(); all[len(all)-1].GetCompleted().GetTotal().AsDuration() < time.Second {
			t.Errorf("it tells to have taken %v", all[len(all)-1].GetCompleted().GetTotal().AsDuration())
		}
		<-planned.done
		planned.tells(t, "accepted tiny", "encoder", waits, "denoiser", "decoder", "completed")
		s.lacks(t)
	})
}

// TestWaitsInVain: the wait for a stage ends with patience or the deadline, and what a stage would refuse is refused at once where that
// is known, else when it is there.
func TestWaitsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := overNames(t)
		full := false
		s.denoiser.Before = func(_ context.Context, call string) error {
			if full && call == "plan" {
				return stage.Errorf(stage.DiskFull, "scripted")
			}
			return nil
		}
		begun := time.Now()
		_, err := s.generate(t, small())
		refused(t, err, codes.Unavailable, stage.StageUnreachable)
		if took := time.Since(begun); took < 58*time.Second || !strings.Contains(err.Error(), "no address behind denoiser:7422") || retry(err) == 0 {
			t.Errorf("after %v: %v", took, err)
		}
		s.in()
		if _, err := s.generate(t, small()); err != nil {
			t.Fatal(err)
		}
		s.out(t)
		for _, bad := range []*spec{{Model: "sd9"}, {Model: stagetest.Model, Steps: ptr(int32(-1))}, {Model: stagetest.Broken}} {
			begun := time.Now()
			if events, err := s.generate(t, bad); err == nil || len(events) > 0 || time.Since(begun) > 0 {
				t.Errorf("%v: %q, %v after %v", bad, words(events), err, time.Since(begun))
			}
		}
		odd := small()
		odd.WidthPx = ptr(int32(64)) // of which no plan is known
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begun = time.Now()
		events, err := rest(s.start(ctx, t, odd))
		refused(t, err, codes.Unavailable, stage.StageUnreachable)
		if got := words(events); !slices.Equal(got, []string{"accepted tiny", waits}) || time.Since(begun) >= 10*time.Second {
			t.Errorf("told is %q until %v", got, time.Since(begun))
		}
		again := s.call(t.Context(), t, odd)
		full = true
		s.in()
		<-again.done
		refused(t, again.err, codes.ResourceExhausted, stage.DiskFull)
		again.tells(t, "accepted tiny", waits)
		s.lacks(t)
	})
}
