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

// TestStreamsByItself: where a stage does not fit the budget as a whole, as much of its weights is kept as fits, one event
// tells so, and the picture is the same to the byte unless the decoder, too, runs in bands. The smallest budget that a plan tells is enough, and the error below it tells it.
func TestStreamsByItself(t *testing.T) {
	whole := runPlan(t, "starter")
	least := whole.LeastStreamedBudgetBytes
	if least >= whole.LeastBudgetBytes {
		t.Fatalf("%+v: the test shows nothing", whole)
	}
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox on a blue background", Seed: ptr(uint64(42)), Steps: ptr(int32(3))}
	var want []byte
	for _, c := range []struct {
		budget  int64
		refused bool
		args    []string
	}{{budget: 0}, {budget: whole.LeastBudgetBytes}, {budget: (least + whole.LeastBudgetBytes) / 2}, {budget: least}, {least - 1, true, nil}, {whole.LeastBudgetBytes - 1, true, []string{"--resident-bytes", "all"}}} {
		args := c.args
		if c.budget > 0 {
			args = append(args, "--memory-budget", strconv.FormatInt(c.budget, 10))
		}
		s := up(t, args...)
		events, err := s.generate(t.Context(), spec, nil)
		if c.refused {
			told := least
			if c.args != nil {
				told = whole.LeastBudgetBytes
			}
			if info := errorInfo(err); info.GetReason() != "MODEL_DOES_NOT_FIT" || info.GetMetadata()["least_budget_bytes"] != strconv.FormatInt(told, 10) {
				t.Errorf("budget %d %v: %v, want it to tell %d", c.budget, c.args, err, told)
			}
			s.stop(t)
			continue
		}
		if err != nil {
			t.Fatalf("budget %d: %v", c.budget, err)
		}
		picture := images(t, events)[0]
		if want == nil {
			want = picture
		}
		p := runPlan(t, append([]string{"starter"}, args...)...)
		if p.Stages[2].Mode == "whole" && string(picture) != string(want) { // bands differ by rounding
			t.Errorf("budget %d: another picture", c.budget)
		}
		wantUsage(t, p, events)
		streams := c.budget > 0 && c.budget < whole.LeastBudgetBytes
		told := 0
		for _, e := range events {
			r := e.GetResidency()
			if c.budget > 0 && r.GetUsedBytes() > c.budget {
				t.Errorf("budget %d: %v", c.budget, r)
			}
			if a := r.GetAction(); (a == triptychv1alpha1.ResidencyEvent_ACTION_LOAD || a == triptychv1alpha1.ResidencyEvent_ACTION_PREFETCH) &&
				r.GetStage() == "denoiser" && strings.Contains(r.GetReason(), "are kept and the others streamed") {
				told++
				t.Log(r.GetReason())
			}
		}
		if peak := events[len(events)-1].GetCompleted().GetPeakBytes(); c.budget > 0 && peak > c.budget {
			t.Errorf("a peak of %d bytes, budget %d", peak, c.budget)
		}
		if streams && told != 1 || !streams && told != 0 {
			t.Errorf("budget %d: %d events tell of streaming", c.budget, told)
		}
		s.stop(t)
	}
}

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
