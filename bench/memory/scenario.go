package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/bench/stack"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

const gib = int64(1) << 30

// scenario is a picture under a budget.
type scenario struct {
	name      string
	budget    int64
	side      int
	upscale   bool     // and enlarge it to twice its sides
	precision []string // flags
	pinned    bool     // nothing is evicted: the request is to be refused
	evicts    bool     // the plan is to tell that something is loaded twice
	streams   bool     // and this, that weights are streamed
	as        string   // the scenario whose picture is to be made
}

// scenarios are the article's: SDXL and an upscaler on a card of 8 GiB, and what a smaller one takes.
func (o options) scenarios() []scenario {
	int8 := []string{"--precision", "encoder=int8", "--precision", "denoiser=int8"}
	return []scenario{
		{name: "f16, 8 GiB", budget: 8 * gib, side: o.side, upscale: true},
		{name: "f16, 5.5 GiB, nothing evicted", budget: 11 * gib / 2, side: o.side, upscale: true, pinned: true},
		{name: "f16, 5.5 GiB", budget: 11 * gib / 2, side: o.side, upscale: true, evicts: true, as: "f16, 8 GiB"},
		{name: "int8, 4 GiB", budget: 4 * gib, side: o.small, precision: int8},
		{name: "int8, 2 GiB", budget: 2 * gib, side: o.small, precision: int8, evicts: true, streams: true, as: "int8, 4 GiB"},
	}
}

// planned is what `triptych plan --json` tells.
type planned struct {
	Models []struct {
		Mode                     string `json:"mode"`
		LeastBudgetBytes         int64  `json:"least_budget_bytes"`
		LeastStreamedBudgetBytes int64  `json:"least_streamed_budget_bytes"`
		AllBytes                 int64  `json:"all_bytes"`
		ReloadBytes              int64  `json:"reload_bytes_per_image"`
		Stages                   []struct {
			Stage         string `json:"stage"`
			WeightsBytes  int64  `json:"weights_bytes"`
			ScratchBytes  int64  `json:"scratch_bytes"`
			StreamedBytes int64  `json:"streamed_bytes"`
		} `json:"stages"`
	} `json:"models"`
}

// plan asks what the scenario takes.
func (o options) plan(ctx context.Context, s scenario) (p planned, err error) {
	side := strconv.Itoa(s.side)
	args := append([]string{
		"plan", filepath.Base(o.model), "--models", o.model, "--models", o.upscaler, "--json", "--load-bandwidth", "1GB/s",
		"--memory-budget", strconv.FormatInt(s.budget, 10), "--width", side, "--height", side,
	}, s.precision...)
	if s.upscale {
		args = append(args, "--option", "upscaler="+filepath.Base(o.upscaler), "--option", "upscale=2")
	}
	out, err := exec.CommandContext(ctx, o.program, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return p, fmt.Errorf("triptych %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	if err == nil && len(p.Models) != 1 {
		err = fmt.Errorf("%d models are planned", len(p.Models))
	}
	return p, err
}

// spec is the request of the scenario.
func (o options) spec(s scenario) *triptychv1alpha1.GenerationSpec {
	side, steps, seed, guidance := int32(s.side), int32(o.steps), uint64(42), float32(6)
	p := &triptychv1alpha1.GenerationSpec{
		Model: filepath.Base(o.model), Prompt: "a lighthouse at dusk", NegativePrompt: "fog", WidthPx: &side, HeightPx: &side, Steps: &steps, Seed: &seed, GuidanceScale: &guidance,
		Output: &triptychv1alpha1.OutputOptions{OmitMetadata: true},
	}
	if s.upscale {
		p.Options = map[string]*triptychv1alpha1.OptionValue{
			"upscaler": {Value: &triptychv1alpha1.OptionValue_Text{Text: filepath.Base(o.upscaler)}}, "upscale": {Value: &triptychv1alpha1.OptionValue_Float{Float: 2}},
		}
	}
	return p
}

// measure plans a scenario and runs it.
func (o options) measure(ctx context.Context, s scenario) (r row, err error) {
	r = row{Name: s.name, BudgetBytes: s.budget, Flags: s.precision, SidePx: s.side, Upscale: s.upscale}
	p, err := o.plan(ctx, s)
	if err != nil {
		return r, err
	}
	r.plan(p)
	args := append([]string{"--memory-budget", strconv.FormatInt(s.budget, 10)}, s.precision...)
	if s.pinned {
		for _, kind := range stage.Kinds() {
			r.Flags = append(r.Flags, "--pin", kind.String())
		}
		args = append(args, r.Flags...)
	}
	up, err := stack.Start(o.program, []string{o.model, o.upscaler}, args...)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, up.Stop()) }()
	ledger, err := follow(up.Conn)
	if err != nil {
		return r, err
	}
	stop, err := up.Memory(o.every)
	if err != nil {
		return r, err
	}
	begin := time.Now()
	_, failed := up.Generate(ctx, o.spec(s), func(e *triptychv1alpha1.GenerateResponse) {
		if i := e.GetImageReady(); i != nil {
			r.Picture = hex.EncodeToString(i.GetSha256())
		}
	})
	r.Seconds = time.Since(begin).Seconds()
	r.ProcessPeak, err = stop()
	r.ledger(ledger.stop())
	for _, kind := range stage.Kinds() {
		_, peak, askErr := up.Allocated(ctx, kind)
		r.Allocators, err = append(r.Allocators, peak), errors.Join(err, askErr)
	}
	for _, d := range status.Convert(errors.Unwrap(failed)).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			r.Refused = info.GetReason()
		}
	}
	if failed != nil && r.Refused == "" {
		err = errors.Join(err, failed)
	}
	return r, err
}
