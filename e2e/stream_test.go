//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestStreamedWeights: a budget that the denoiser's weights alone exceed is enough where they are streamed, the plan
// says so before, and the picture is the same to the byte.
func TestStreamedWeights(t *testing.T) {
	streamed := []string{"--resident-bytes", "denoiser=1MiB", "--resident-bytes", "encoder=0"}
	whole := runPlan(t, "starter")
	budget := whole.LeastStreamedBudgetBytes + 3<<20
	if budget >= whole.Stages[1].WeightsBytes {
		t.Fatalf("a budget of %d holds the denoiser's %d bytes: the test shows nothing", budget, whole.Stages[1].WeightsBytes)
	}
	limited := append([]string{"--memory-budget", strconv.FormatInt(budget, 10)}, streamed...)
	p := runPlan(t, append([]string{"starter"}, limited...)...)
	for i, mode := range []string{"streamed", "streamed", "whole"} {
		if s := p.Stages[i]; s.Mode != mode || (s.StreamedBytes > 0) != (mode == "streamed") || s.WeightsBytes+s.ScratchBytes > budget ||
			s.WeightsBytes > whole.Stages[i].WeightsBytes || s.StreamedBytes > whole.Stages[i].WeightsBytes {
			t.Errorf("planned %+v, in a budget of %d; without streaming %+v", s, budget, whole.Stages[i])
		}
	}

	// The files tell their parameters, so that equal bytes mean equal pixels.
	var files [2][]byte
	for i, args := range [][]string{nil, limited} {
		path := filepath.Join(t.TempDir(), "out.png")
		got := runCommand(t, append([]string{"generate", "fox on a blue background", "--seed", "42", "--steps", "3", "-o", path}, args...)...)
		if got.code != 0 {
			t.Fatalf("generate %v: exit code %d: %s", args, got.code, got.stderr)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = data
	}
	if string(files[0]) != string(files[1]) {
		t.Error("the picture made with streamed weights differs")
	}

	s := up(t, limited...)
	events, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(2))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantUsage(t, p, events)
	if peak := events[len(events)-1].GetCompleted().GetPeakBytes(); peak > budget {
		t.Errorf("a peak of %d bytes, budget %d", peak, budget)
	}
	s.stop(t)

	// A limit that no stage here would keep to is refused.
	got := runCommand(t, "denoiser", "--resident-bytes", "encoder=0")
	if got.code != 2 || !strings.Contains(got.stderr, "expected denoiser=SIZE") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}
