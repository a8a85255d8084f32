//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/families/testdata/toymodel"
	"github.com/triptych-serving/triptych/internal/top"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// withToy makes the tests' binary one that has the toy family, by its folder and one line in the list of families (and the import
// that goes with it), and gives the folder of a model. Nothing else is changed.
func withToy(t *testing.T) (model string) {
	t.Helper()
	list, err := filepath.Abs("../families/all.go")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	for what, with := range map[string]string{
		"flux.Family(),": "flux.Family(), toy.Family(),",
		"import (\n":     "import (\n\t\"github.com/triptych-serving/triptych/families/testdata/toy\"\n",
	} {
		if bytes.Count(source, []byte(what)) != 1 {
			t.Fatalf("%s does not have %q once", list, what)
		}
		source = bytes.Replace(source, []byte(what), []byte(with), 1)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "all.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {list: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{changed: source, overlay: replace} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-overlay", overlay, "-o", filepath.Join(dir, "triptych"), "./cmd/triptych")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	plain := program
	program = filepath.Join(dir, "triptych")
	t.Cleanup(func() { program = plain })
	model = filepath.Join(dir, "toy")
	if err := toymodel.Write(model, 128, nil); err != nil {
		t.Fatal(err)
	}
	return model
}

// toySpec is a request of two frames, with a control if it is wanted.
func toySpec(steps int32, controlled bool) *triptychv1alpha1.GenerationSpec {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "a small red boat", Seed: ptr(uint64(7)), Steps: &steps}
	if controlled {
		spec.Inputs = map[string][]byte{"control": stagetest.Photo(32, 32).Data}
	}
	return spec
}

// frames gives the files of the first image's units, whichever was ready first.
func frames(t *testing.T, events []*triptychv1alpha1.GenerateResponse, n int) (out [][]byte) {
	t.Helper()
	out = make([][]byte, n)
	for _, e := range events {
		i := e.GetImageReady()
		if i == nil {
			continue
		}
		unit := int(i.GetUnit())
		if int(i.GetUnits()) != n || unit >= n || out[unit] != nil || i.GetImageIndex() != 0 || i.GetSeed() != 7 {
			t.Fatalf("told of unit %d of %d of image %d, seed %d, want %d of image 0 once, seed 7", unit, i.GetUnits(), i.GetImageIndex(), i.GetSeed(), n)
		}
		config, err := png.DecodeConfig(bytes.NewReader(i.GetData()))
		if err != nil || config.Width != int(i.GetWidthPx()) || config.Height != int(i.GetHeightPx()) {
			t.Errorf("frame %d: %+v, %v", unit, config, err)
		}
		out[unit] = i.GetData()
	}
	if slices.ContainsFunc(out, func(f []byte) bool { return f == nil }) {
		t.Fatalf("not all of %d frames are told", n)
	}
	return out
}

// TestToyFamily: a family that is a folder and a line is drawn with, through three services, and by every command.
func TestToyFamily(t *testing.T) {
	model := withToy(t)
	s := up(t, "--models", model)
	made := func(t *testing.T, spec *triptychv1alpha1.GenerationSpec, n int) [][]byte {
		t.Helper()
		events, err := s.generate(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		return frames(t, events, n)
	}
	plain, controlled := made(t, toySpec(4, false), 2), made(t, toySpec(4, true), 2)
	wobble := map[string]*triptychv1alpha1.OptionValue{"wobble": {Value: &triptychv1alpha1.OptionValue_Float{Float: 0.5}}}
	wobbly := toySpec(4, true)
	wobbly.Options = wobble
	all := slices.Concat(plain, controlled, made(t, wobbly, 2))
	for i, a := range all {
		for j, b := range all[:i] {
			if bytes.Equal(a, b) {
				t.Errorf("frames %d and %d are the same", j, i)
			}
		}
	}
	t.Run("again", func(t *testing.T) {
		same(t, plain, made(t, toySpec(4, false), 2))
		same(t, controlled, made(t, toySpec(4, true), 2))
	})
	t.Run("previews", func(t *testing.T) {
		units := map[int32]bool{}
		for try := 0; !units[0] || !units[1]; try++ { // while the decoder is busy, none is shown
			spec := toySpec(100, false)
			spec.Preview = &triptychv1alpha1.PreviewOptions{EveryNSteps: 1}
			events, err := s.generate(t.Context(), spec, nil)
			if err != nil || try == 100 {
				t.Fatalf("previews of units %v, %v", units, err)
			}
			for _, e := range events {
				if p := e.GetPreview(); p != nil {
					if units[p.GetUnit()] = true; p.GetUnit() != (p.GetStep()-1)/100 {
						t.Errorf("the preview after step %d is of unit %d", p.GetStep(), p.GetUnit())
					}
				}
				if w := e.GetWarning(); strings.Contains(w.GetMessage(), "failed") {
					t.Errorf("warned of %v", w)
				}
			}
		}
	})
	t.Run("command", func(t *testing.T) {
		dir := t.TempDir()
		picture := filepath.Join(dir, "control.png")
		if err := os.WriteFile(picture, stagetest.Photo(32, 32).Data, 0o600); err != nil {
			t.Fatal(err)
		}
		command := []string{
			"generate", "a small red boat", "--server", s.addresses["orchestrator"], "--seed", "7", "--steps", "4",
			"--input", "control=" + picture, "--option", "wobble=0.5", "-o", filepath.Join(dir, "clip.png"),
		}
		got := runCommand(t, command...)
		var written [][]byte
		for i := range 2 {
			name := filepath.Join(dir, fmt.Sprintf("clip-%d.png", i+1))
			data, err := os.ReadFile(name)
			if err != nil || !strings.Contains(got.stdout, name) {
				t.Fatalf("exit code %d, %v: %s%s", got.code, err, got.stdout, got.stderr)
			}
			written = append(written, data)
		}
		same(t, all[4:], written)
		if got := runCommand(t, append(command, "--option", "wobble=2")...); got.code == 0 || !strings.Contains(got.stderr, "wobble") {
			t.Errorf("a wobble of 2: exit code %d, %s", got.code, got.stderr)
		}
		if got := runCommand(t, append(command, "-o", "-")...); got.code == 0 || !strings.Contains(got.stderr, "comes in 2") {
			t.Errorf("two frames to standard output: exit code %d, %s", got.code, got.stderr)
		}
		got = runCommand(t, "models", "toy", "--models", model)
		for _, want := range []string{"control", "wobble", "frames", "0 to 1"} {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("models does not tell of %q: %s%s", want, got.stdout, got.stderr)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		for name, c := range map[string]struct {
			change func(*triptychv1alpha1.GenerationSpec)
			field  string
		}{
			"an option of others": {func(s *triptychv1alpha1.GenerationSpec) { s.GuidanceScale = ptr(float32(3)) }, "guidance_scale"},
			"an unknown option": {func(s *triptychv1alpha1.GenerationSpec) {
				s.Options = map[string]*triptychv1alpha1.OptionValue{"wobbel": wobble["wobble"]}
			}, "options.wobbel"},
			"an option of a type": {func(s *triptychv1alpha1.GenerationSpec) {
				s.Options = map[string]*triptychv1alpha1.OptionValue{"frames": wobble["wobble"]}
			}, "options.frames"},
			"too many frames": {func(s *triptychv1alpha1.GenerationSpec) {
				s.Options = map[string]*triptychv1alpha1.OptionValue{"frames": {Value: &triptychv1alpha1.OptionValue_Int{Int: 9}}}
			}, "options.frames"},
			"no frame": {func(s *triptychv1alpha1.GenerationSpec) {
				s.Options = map[string]*triptychv1alpha1.OptionValue{"frames": {Value: &triptychv1alpha1.OptionValue_Int{}}}
			}, "options.frames"},
			"a control that is none": {func(s *triptychv1alpha1.GenerationSpec) { s.Inputs = map[string][]byte{"control": []byte("OggS")} }, "control"},
			"an input of others":     {func(s *triptychv1alpha1.GenerationSpec) { s.InitImage = stagetest.Photo(8, 8).Data }, "init_image"},
			"a side of its own":      {func(s *triptychv1alpha1.GenerationSpec) { s.WidthPx = ptr(int32(30)) }, "width_px"},
		} {
			spec := toySpec(4, false)
			c.change(spec)
			_, err := s.generate(t.Context(), spec, nil)
			if info := errorInfo(err); status.Code(err) != codes.InvalidArgument || info.GetMetadata()["field"] != c.field || info.GetMetadata()["accepted"] == "" {
				t.Errorf("%s: %v with %v", name, err, info)
			}
		}
	})
	for _, victim := range []string{"runtime denoiser", "denoiser --log-level"} {
		t.Run("killed "+victim, func(t *testing.T) {
			spec, killed := toySpec(40, true), false
			spec.WidthPx, spec.HeightPx = ptr(int32(256)), ptr(int32(256)) // so that steps take long enough for a kill to come between them
			want := made(t, spec, 2)
			events, err := s.generate(t.Context(), spec, func(e *triptychv1alpha1.GenerateResponse) {
				// In the second frame, in a step that is no checkpoint.
				if p := e.GetProgress(); !killed && p.GetTurn() == "denoise" && p.GetStep() >= 47 {
					killed = true
					if err := syscall.Kill(s.find(t, program+" "+victim), syscall.SIGKILL); err != nil {
						t.Error(err)
					}
				}
			})
			if err != nil || !killed {
				t.Fatalf("killed: %v, %v", killed, err)
			}
			if !slices.ContainsFunc(events, func(e *triptychv1alpha1.GenerateResponse) bool { return e.GetWarning().GetCode() == "STAGE_RESTARTED" }) {
				t.Error("the denoiser had ended its work before it was killed")
			}
			same(t, want, frames(t, events, 2))
		})
	}
}

// TestToyBudget: in a budget that does not hold all of a model's components, sets of them are evicted in turn, with the same frames;
// plans, recordings, simulations, traces and views tell of them.
func TestToyBudget(t *testing.T) {
	model := withToy(t)
	p := runPlan(t, model, "--inputs", "control")
	if without := runPlan(t, model); p.AllBytes <= without.AllBytes || p.LeastBudgetBytes <= without.LeastBudgetBytes {
		t.Errorf("planned with a control: %d bytes of a budget of %d, without %d of %d", p.AllBytes, p.LeastBudgetBytes, without.AllBytes, without.LeastBudgetBytes)
	}
	s := up(t, "--models", model)
	free, err := s.generate(t.Context(), toySpec(4, true), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantUsage(t, p, free)
	s.stop(t)
	budget := p.LeastBudgetBytes
	if tight := runPlan(t, model, "--inputs", "control", "--memory-budget", strconv.FormatInt(budget, 10)); budget >= p.AllBytes || tight.Stages[1].Mode != "whole" {
		t.Fatalf("a budget of %d is for all %d bytes, or too little for %+v", budget, p.AllBytes, tight.Stages[1])
	}
	s = up(t, "--models", model, "--memory-budget", strconv.FormatInt(budget, 10))
	dir := t.TempDir()
	recorded := filepath.Join(dir, "events.jsonl")
	trace := startTrace(t, s, "--record", recorded)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	watch, err := triptychv1alpha1.NewResidencyServiceClient(s.conn).WatchResidency(ctx, &triptychv1alpha1.WatchResidencyRequest{Jobs: true})
	if err != nil {
		t.Fatal(err)
	}
	view := top.State{}
	news := func() *triptychv1alpha1.WatchResidencyResponse {
		n, err := watch.Recv()
		if err != nil {
			t.Fatalf("%v, of\n%s", err, view.View("", 200, 50, time.UTC))
		}
		view = view.Apply(n)
		return n
	}
	news() // it is heard of all that follows
	const jobs = 3
	for range jobs {
		events, err := s.generate(t.Context(), toySpec(4, true), nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, frames(t, free, 2), frames(t, events, 2))
		if peak := events[len(events)-1].GetCompleted().GetPeakBytes(); peak > budget {
			t.Errorf("%d bytes were reserved of %d", peak, budget)
		}
	}
	if err := trace.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code, said := trace.end(t); code != 0 {
		t.Fatalf("exit code %d: %s", code, said)
	}
	evicted, shown := map[string]bool{}, false
	away := []string{"toy/text_encoder", "toy/text_encoder_2", "toy/control", "toy/decoder"} // beside whom the denoiser may stay
	for slices.ContainsFunc(away, func(name string) bool { return !evicted[name] }) || !shown {
		if e := news().GetDecision().GetEvent(); e.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_EVICT {
			evicted[e.GetComponent()] = true
		}
		text := view.View("", 200, 50, time.UTC)
		shown = shown || strings.Contains(text, "denoiser") && strings.Contains(text, "control")
	}
	drawn := map[string]int{}
	all, _ := trace.events(t)
	for _, e := range all {
		if e.Phase == "X" {
			drawn[e.Category]++
		}
	}
	if drawn["compute"] < jobs*4 || drawn["evict"] == 0 { // encode, denoise and two frames
		t.Errorf("the trace has %v", drawn)
	}
	file := filepath.Join(dir, "jobs.jsonl")
	got := runCommand(t, "simulate", "--from", recorded, "--write-trace", file, "--json")
	var rows []struct {
		BudgetBytes int64 `json:"budget_bytes"`
		Results     []simulate.Result
	}
	if err := json.Unmarshal([]byte(got.stdout), &rows); err != nil || len(rows) != 1 || rows[0].BudgetBytes != budget {
		t.Fatalf("exit code %d, %v: %s%s", got.code, err, got.stdout, got.stderr)
	}
	if ours := rows[0].Results[0]; ours.Done != jobs || ours.Violations != 0 || ours.PeakBytes > budget || ours.Loads < len(away)*jobs {
		t.Errorf("foretold is %+v", ours)
	}
}
