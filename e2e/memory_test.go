//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// footprints asks a server without a budget what each stage takes for a request.
func footprints(t *testing.T, spec *triptychv1alpha1.GenerationSpec) (largest, sum int64, files [][]byte) {
	t.Helper()
	s := up(t)
	events, err := s.generate(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range events[len(events)-1].GetCompleted().GetStages() {
		bytes := u.GetWeightsBytes() + u.GetScratchBytes()
		largest, sum = max(largest, bytes), sum+bytes
	}
	s.stop(t)
	return largest, sum, images(t, events)
}

// TestBudget: with 1.2 times the largest stage, stages are evicted in turn, each with a reason, the
// budget is never exceeded and the picture is the same. Below the largest, where nothing may be streamed, the request is refused.
func TestBudget(t *testing.T) {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox on a blue background", Seed: ptr(uint64(42)), Steps: ptr(int32(4))}
	largest, sum, want := footprints(t, spec)
	budget := largest * 12 / 10
	if budget >= sum {
		t.Fatalf("a budget of 1.2x the largest stage, %d, holds all of them, %d: the test shows nothing", budget, sum)
	}
	s := up(t, "--memory-budget", strconv.FormatInt(budget, 10))
	var evicted []string
	for range 2 {
		events, err := s.generate(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := images(t, events); string(got[0]) != string(want[0]) {
			t.Error("the picture made with evictions differs")
		}
		for _, e := range events {
			r := e.GetResidency()
			if r == nil {
				continue
			}
			if r.GetUsedBytes() > budget || r.GetBudgetBytes() != budget {
				t.Errorf("%d bytes are reserved of %d (reported %d): %v", r.GetUsedBytes(), budget, r.GetBudgetBytes(), r)
			}
			if r.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_EVICT {
				if r.GetReason() == "" {
					t.Errorf("no reason: %v", r)
				}
				evicted = append(evicted, r.GetStage()+": "+r.GetReason())
			}
		}
		if peak := events[len(events)-1].GetCompleted().GetPeakBytes(); peak > budget || peak < largest {
			t.Errorf("peak %d bytes, budget %d, largest stage %d", peak, budget, largest)
		}
	}
	if len(evicted) == 0 {
		t.Error("nothing was evicted")
	}
	t.Logf("budget %d of %d for all stages; evictions:\n%s", budget, sum, strings.Join(evicted, "\n"))
	s.stop(t)

	small := largest - 1
	s = up(t, "--memory-budget", strconv.FormatInt(small, 10), "--resident-bytes", "all")
	_, err := s.generate(t.Context(), spec, nil)
	info := errorInfo(err)
	if status.Code(err) != codes.FailedPrecondition || info.GetReason() != "MODEL_DOES_NOT_FIT" ||
		info.GetMetadata()["needed_bytes"] != fmt.Sprint(largest) || info.GetMetadata()["available_bytes"] != fmt.Sprint(small) {
		t.Errorf("below the largest stage: %v with %v", err, info)
	}
}

// TestRefusedExitCode: the command line tells a refusal from a failure.
func TestRefusedExitCode(t *testing.T) {
	got := runCommand(t, "generate", "fox", "-o", filepath.Join(t.TempDir(), "x.png"), "--memory-budget", "4MiB")
	if got.code != 3 || !strings.Contains(got.stderr, "needs") || !strings.Contains(got.stderr, "available") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

// TestEvictionGivesBytesBack: the runtime of the evicted denoiser shrinks by its weights.
func TestEvictionGivesBytesBack(t *testing.T) {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Seed: ptr(uint64(1)), Steps: ptr(int32(2))}
	largest, _, _ := footprints(t, spec)
	s := up(t, "--memory-budget", strconv.FormatInt(largest*11/10, 10))
	runtime := s.find(t, "runtime denoiser")
	before := rss(t, runtime)
	var held int64
	var weights int64
	events, err := s.generate(t.Context(), spec, func(e *triptychv1alpha1.GenerateResponse) {
		if p := e.GetProgress(); p.GetStage() == "denoiser" && p.GetStep() > 0 {
			held = max(held, rss(t, runtime))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	evicted := false
	for _, e := range events {
		if r := e.GetResidency(); r.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_EVICT && r.GetStage() == "denoiser" {
			evicted, weights = true, r.GetBytes()
		}
	}
	if !evicted {
		t.Fatal("the denoiser was not evicted")
	}
	// The heap of the process may keep what it grew by, a few MiB; the weights are 17 MiB.
	after := rss(t, runtime)
	t.Logf("runtime of the denoiser: %d bytes before, %d at work, %d after eviction of %d", before, held, after, weights)
	if held < before+weights {
		t.Errorf("at work the process had %d bytes more, less than its weights of %d", held-before, weights)
	}
	if after > held-weights {
		t.Errorf("%d bytes after eviction, want at most %d", after, held-weights)
	}
}

func errorInfo(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}
