//go:build linux

package e2e

import (
	"bytes"
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestKilledProcesses: whatever is killed in the middle of a request, the request ends with the
// same bytes.
func TestKilledProcesses(t *testing.T) {
	// Long enough that the kill comes in the middle, and ancestral: a resumed run must draw the same noise.
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "rocket on a black background", Seed: ptr(uint64(7)), Steps: ptr(int32(24)), Sampler: "euler_a", ImageCount: ptr(int32(2))}
	s := up(t)
	quiet, err := s.generate(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := images(t, quiet)
	for _, victim := range []string{"runtime encoder", "runtime denoiser", "runtime decoder", "encoder --log-level", "denoiser --log-level", "decoder --log-level"} {
		t.Run(victim, func(t *testing.T) {
			killed := false
			events, err := s.generate(t.Context(), spec, func(e *triptychv1alpha1.GenerateResponse) {
				// The denoiser is killed while it works, in a step that is no checkpoint; the others
				// before their turn (the encoder's is over, so the next request finds it gone).
				if p := e.GetProgress(); !killed && p.GetStage() == "denoiser" && p.GetStep() >= 7 {
					killed = true
					if err := syscall.Kill(s.find(t, program+" "+victim), syscall.SIGKILL); err != nil {
						t.Error(err)
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if !killed {
				t.Fatal("nothing was killed")
			}
			same(t, want, images(t, events))
			if events, err = s.generate(t.Context(), spec, nil); err != nil {
				t.Fatalf("the request after: %v", err)
			}
			same(t, want, images(t, events))
		})
	}
}

func same(t *testing.T, want, got [][]byte) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d images, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(want[i], got[i]) {
			t.Errorf("image %d differs", i)
		}
	}
}

// TestConcurrentClients: two clients at once are both served, and their stages overlap.
func TestConcurrentClients(t *testing.T) {
	s := up(t)
	var wg sync.WaitGroup
	results := make([][]*triptychv1alpha1.GenerateResponse, 4)
	for i := range results {
		wg.Go(func() {
			events, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "owl", Seed: ptr(uint64(i % 2)), Steps: ptr(int32(6))}, nil)
			if err != nil {
				t.Error(err)
			}
			results[i] = events
		})
	}
	wg.Wait()
	same(t, images(t, results[0]), images(t, results[2]))
	same(t, images(t, results[1]), images(t, results[3]))
	if bytes.Equal(images(t, results[0])[0], images(t, results[1])[0]) {
		t.Error("two seeds gave one picture")
	}
	queued := false
	for _, events := range results {
		for _, e := range events {
			queued = queued || e.GetQueued().GetPosition() > 0
		}
	}
	if !queued {
		t.Error("four requests came at once and none was told its position")
	}
}

// TestCancelStopsWork: a client that goes away frees the denoiser within one step.
func TestCancelStopsWork(t *testing.T) {
	s := up(t)
	ctx, cancel := context.WithCancel(t.Context())
	long := &triptychv1alpha1.GenerationSpec{Prompt: "cat", Seed: ptr(uint64(1)), Steps: ptr(int32(1000)), Sampler: "euler"}
	steps := 0
	start := time.Now()
	var perStep time.Duration
	_, err := s.generate(ctx, long, func(e *triptychv1alpha1.GenerateResponse) {
		if p := e.GetProgress(); p.GetStage() == "denoiser" {
			if p.GetStep() == 1 {
				start = time.Now()
			}
			if steps = int(p.GetStep()); steps >= 5 {
				perStep = time.Since(start) / time.Duration(steps-1)
				cancel()
			}
		}
	})
	if status.Code(err) != codes.Canceled {
		t.Fatalf("cancelled: %v", err)
	}
	// A short request gets the denoiser although a thousand steps were asked for: at the rate
	// measured, the rest would have taken far longer than all of what follows may.
	begin := time.Now()
	if _, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "cat", Seed: ptr(uint64(1)), Steps: ptr(int32(2))}, nil); err != nil {
		t.Fatal(err)
	}
	if took, rest := time.Since(begin), perStep*time.Duration(1000-steps); took > rest/2 {
		t.Errorf("the next request took %v; the cancelled one had %v left", took, rest)
	}
}

// TestMissingStage: with a stage service gone for good, a request waits until its deadline and is
// then told which stage is missing.
func TestMissingStage(t *testing.T) {
	encoder := startServer(t, command(t, "encoder", "--log-level", "info"))
	denoiser := startServer(t, command(t, "denoiser", "--log-level", "info"))
	orchestrator := command(t, "orchestrator", "--listen", "127.0.0.1:0", "--encoder", encoder.conn.Target(), "--denoiser", denoiser.conn.Target(), "--decoder", "127.0.0.1:1", "--log-level", "info")
	other := startServer(t, orchestrator)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := other.generate(ctx, &triptychv1alpha1.GenerationSpec{Prompt: "cat"}, nil)
	if info := errorInfo(err); status.Code(err) != codes.Unavailable || info.GetReason() != "STAGE_UNREACHABLE" || info.GetMetadata()["stage"] != "decoder" {
		t.Errorf("got %v with %v, want UNAVAILABLE naming the decoder", err, info)
	}
}

// TestSlowReader: a client that stops reading holds up nobody else. (That it is cut off in the end, the tests of
// orchestrator/api show.)
func TestSlowReader(t *testing.T) {
	s := up(t)
	stream, err := s.client.Generate(t.Context(), &triptychv1alpha1.GenerateRequest{Spec: &triptychv1alpha1.GenerationSpec{
		Prompt: "cat", Steps: ptr(int32(1)), ImageCount: ptr(int32(64)), Sampler: "euler",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	// 64 images are far more than the windows of the connection hold, and nobody reads them.
	if _, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "dog", Steps: ptr(int32(1)), Sampler: "euler"}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestKilledOrchestrator: it comes back at its address and finds the stages, and what they hold, as they were.
func TestKilledOrchestrator(t *testing.T) {
	s := up(t)
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "cat", Seed: ptr(uint64(1)), Steps: ptr(int32(2))}
	before, err := s.generate(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := s.find(t, program+" orchestrator")
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var after []*triptychv1alpha1.GenerateResponse
	for deadline := time.Now().Add(patience); ; { // calls on the connection that broke fail at once
		if after, err = s.generate(t.Context(), spec, nil); status.Code(err) != codes.Unavailable || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	same(t, images(t, before), images(t, after))
	for _, e := range after {
		if l := e.GetStageLoading(); l != nil {
			t.Errorf("the %s was loaded again, although it never let go", l.GetStage())
		}
	}
	if now := s.find(t, program+" orchestrator"); now == old {
		t.Error("the orchestrator was not killed")
	}
}
