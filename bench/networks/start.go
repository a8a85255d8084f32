package networks

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/triptych-serving/triptych/bench/stat"
)

// StartRow is how long `triptych generate` takes from its start, in milliseconds.
type StartRow struct {
	Model string `json:"model"`
	// FirstStep is the time until the denoiser began its first step, Image until the command had ended.
	FirstStep stat.Summary `json:"first_step_ms"`
	Image     stat.Summary `json:"image_ms"`
}

// MeasureStart runs the command for the starter's image as often as Reps says.
func MeasureStart(ctx context.Context, o Options, program string, m Model) (StartRow, error) {
	row := StartRow{Model: m.Name}
	var first, whole []float64
	for range max(MinReps, o.Reps) {
		f, w, err := timeStart(ctx, o, program, m)
		if err != nil {
			return row, fmt.Errorf("triptych generate: %w", err)
		}
		first, whole = append(first, 1e3*f), append(whole, 1e3*w)
	}
	row.FirstStep, row.Image = stat.Summarize(first), stat.Summarize(whole)
	return row, nil
}

func timeStart(ctx context.Context, o Options, program string, m Model) (first, whole float64, err error) {
	image := starterImage()
	cmd := exec.CommandContext(ctx, program, "generate", image.Prompt, "--json", "--models", m.Path, "--model", filepath.Base(m.Path),
		"--threads", strconv.Itoa(o.Threads), "--steps", strconv.Itoa(image.Steps), "--seed", strconv.FormatUint(image.Seed, 10), "-o", filepath.Join(o.Cache, "start.png"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if first == 0 && denoising(lines.Bytes()) {
			first = time.Since(start).Seconds()
		}
	}
	if err := cmd.Wait(); err != nil {
		return 0, 0, err
	}
	if first == 0 {
		return 0, 0, fmt.Errorf("no step of the denoiser was told")
	}
	return first, time.Since(start).Seconds(), nil
}

// denoising reports whether a line of `generate --json` tells that the denoiser works.
func denoising(line []byte) bool {
	var event struct {
		Progress struct {
			Stage string `json:"stage"`
		} `json:"progress"`
	}
	return json.Unmarshal(line, &event) == nil && event.Progress.Stage == "denoiser"
}
