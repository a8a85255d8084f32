//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/internal/baseline"
	"github.com/triptych-serving/triptych/internal/recording"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestRecordAndReplay: what a stack did in a budget that makes it evict is recorded to the last job, drawn from the recording as
// it was drawn live, and foretold by a simulation in the same budget.
func TestRecordAndReplay(t *testing.T) {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Seed: ptr(uint64(1)), Steps: ptr(int32(2))}
	largest, _, _ := footprints(t, spec)
	budget := largest * 21 / 20 // the denoiser at work leaves no room for another part, nor the decoder for the denoiser
	s := up(t, "--memory-budget", strconv.FormatInt(budget, 10))
	events := filepath.Join(t.TempDir(), "events.jsonl")
	live := startTrace(t, s, "--record", events)
	jobs := []int32{1, 2, 1, 2, 1} // images
	var took [][]*triptychv1alpha1.StageUsage
	for _, images := range jobs {
		spec.ImageCount = ptr(images)
		told, err := s.generate(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, told[len(told)-1].GetCompleted().GetStages())
	}
	if err := live.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code, said := live.end(t); code != 0 || !strings.Contains(live.stdout.String(), events) {
		t.Fatalf("exit code %d: %s%s", code, live.stdout.String(), said)
	}
	s.stop(t) // nothing that follows needs it

	drawn := &traced{file: filepath.Join(t.TempDir(), "drawn.json")}
	if got := runCommand(t, "trace", "--from", events, "-o", drawn.file); got.code != 0 {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	if a, b := ended(t, live), ended(t, drawn); len(a) == 0 || !reflect.DeepEqual(a, b) {
		t.Errorf("%d slices were drawn live and %d of the recording, or others", len(a), len(b))
	}

	file := filepath.Join(t.TempDir(), "jobs.jsonl")
	got := runCommand(t, "simulate", "--from", events, "--write-trace", file, "--json")
	var rows []struct {
		BudgetBytes int64 `json:"budget_bytes"`
		Recording   recording.Summary
		Results     []baseline.Result
	}
	if err := json.Unmarshal([]byte(got.stdout), &rows); err != nil || len(rows) != 1 {
		t.Fatalf("exit code %d, %v: %s%s", got.code, err, got.stdout, got.stderr)
	}
	row, ours := rows[0], rows[0].Results[0]
	if row.BudgetBytes != budget || ours.Policy != baseline.Ours || ours.Done != len(jobs) || ours.Refused != 0 || ours.Violations != 0 || ours.PeakBytes < largest {
		t.Errorf("in a budget of %d: %+v", row.BudgetBytes, ours)
	}
	sameTurns(t, file, jobs, took)
	// Every turn of another stage than the one before has to load, whatever loads and work took, and the replay asks in the
	// recorded order. So it has to load as often, but for loads that failed, which it knows nothing of.
	if want := row.Recording.Loads - row.Recording.FailedLoads; ours.Loads != want || want < 3*len(jobs) {
		t.Errorf("%d loads are foretold, %d were made for %d jobs: %+v", ours.Loads, want, len(jobs), row.Recording)
	}
}

// TestRecordGivenUp: a job that is cancelled at work is told from those that end, and from one that has not ended yet.
func TestRecordGivenUp(t *testing.T) {
	s := up(t)
	events := filepath.Join(t.TempDir(), "events.jsonl")
	r := startTrace(t, s, "--record", events)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := s.generate(ctx, &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(500))}, func(e *triptychv1alpha1.GenerateResponse) {
		if p := e.GetProgress(); p.GetStage() == "denoiser" && p.GetStep() > 0 {
			cancel()
		}
	}); err == nil {
		t.Fatal("the job ended before it was cancelled")
	}
	if _, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(2))}, nil); err != nil {
		t.Fatal(err)
	}
	begun, end := make(chan struct{}), make(chan error, 1)
	working, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		_, err := s.generate(working, &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(500))}, func(e *triptychv1alpha1.GenerateResponse) {
			if p := e.GetProgress(); p.GetStage() == "denoiser" && p.GetStep() == 1 {
				close(begun)
			}
		})
		end <- err
	}()
	select {
	case <-begun:
	case err := <-end:
		t.Fatal("the job ended early: ", err)
	}
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code, said := r.end(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, said)
	}
	stop()
	<-end
	got := runCommand(t, "simulate", "--from", events, "--json")
	var rows []struct{ Recording recording.Summary }
	if err := json.Unmarshal([]byte(got.stdout), &rows); err != nil || len(rows) != 1 {
		t.Fatalf("exit code %d, %v: %s%s", got.code, err, got.stdout, got.stderr)
	}
	if n := rows[0].Recording; n.Jobs != 3 || n.Replayed != 1 || n.GivenUp != 1 || n.CutAtEnd != 1 || n.FailedTurns != 1 {
		t.Errorf("%+v", n)
	}
}

// ended are the slices of a trace that ended in it.
func ended(t *testing.T, r *traced) (all []traceEvent) {
	t.Helper()
	events, _ := r.events(t)
	for _, e := range events {
		if e.Phase == "X" && e.Args["end"] == nil {
			all = append(all, e)
		}
	}
	return all
}

// sameTurns: the trace of a recording has the turns that the jobs took, with the bytes that they were told.
func sameTurns(t *testing.T, file string, images []int32, took [][]*triptychv1alpha1.StageUsage) {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	trace, err := simulate.ReadTrace(in)
	if err != nil || len(trace.Jobs) != len(images) {
		t.Fatalf("%d jobs were replayed of %d: %v", len(trace.Jobs), len(images), err)
	}
	for i, job := range trace.Jobs {
		count := map[string]int32{}
		for _, turn := range job.Turns {
			count[turn.Stage]++
			weights := int64(0)
			for _, w := range turn.Components {
				weights += w.Bytes
			}
			for _, u := range took[i] {
				if u.GetStage() == turn.Stage && (weights != u.GetWeightsBytes() || turn.ScratchBytes != u.GetScratchBytes() || turn.Seconds <= 0 || turn.Seconds > u.GetRunning().AsDuration().Seconds()+1) {
					t.Errorf("job %d: %+v, where it took %v", i, turn, u)
				}
			}
		}
		if want := (map[string]int32{"encoder": 1, "denoiser": images[i], "decoder": images[i]}); !reflect.DeepEqual(count, want) {
			t.Errorf("job %d of %d images: %v", i, images[i], count)
		}
	}
}

// TestRecordingsRefused: flags that contradict each other, and recordings that are none, by line.
func TestRecordingsRefused(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.jsonl")
	if err := os.WriteFile(broken, []byte(`{"snapshot":{"time":"2026-01-01T00:00:00Z"}}`+"\n"+`{"decision":`), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.jsonl")
	if err := os.WriteFile(empty, []byte(`{"snapshot":{"time":"2026-01-01T00:00:00Z"}}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"line 2: message":                  {"simulate", "--from", broken},
		"line 2: message = ":               {"trace", "--from", broken, "-o", filepath.Join(dir, "x.json")},
		"at least one whole job":           {"simulate", "--from", empty},
		"expected one of them":             {"simulate", "--from", empty, "--trace", empty},
		"--jobs is of traces that are":     {"simulate", "--from", empty, "--jobs", "3"},
		"--for is for listening":           {"trace", "--from", empty, "--for", "3s"},
		"--record is for listening":        {"trace", "--from", empty, "--record", empty},
		"is the recording":                 {"trace", "--from", empty, "-o", empty},
		"expected a file":                  {"trace", "--from", empty, "-o", ""},
		"--record " + dir + " is a folder": {"trace", "--record", dir},
	} {
		if got := runCommand(t, args...); got.code != 2 || !strings.Contains(got.stderr, want) {
			t.Errorf("%q: exit code %d: %s", args, got.code, got.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x.json")); !os.IsNotExist(err) {
		t.Errorf("a timeline of a broken recording: %v", err)
	}
}
