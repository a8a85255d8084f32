package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// plan is what `triptych plan` prints, in bytes.
type plan struct {
	Model       string      `json:"model"`
	WidthPx     int         `json:"width_px"`
	HeightPx    int         `json:"height_px"`
	BudgetBytes int64       `json:"budget_bytes,omitempty"`
	Stages      []planStage `json:"stages"`
	// LeastBudgetBytes is the smallest budget in which no stage streams weights but as it is told to, LeastStreamedBudgetBytes
	// the smallest the image can be made in, and AllBytes what keeps every stage in memory.
	LeastBudgetBytes         int64 `json:"least_budget_bytes"`
	LeastStreamedBudgetBytes int64 `json:"least_streamed_budget_bytes"`
	AllBytes                 int64 `json:"all_bytes"`
}

type planStage struct {
	Stage             string `json:"stage"`
	WeightsBytes      int64  `json:"weights_bytes"`
	MostScratchBytes  int64  `json:"most_scratch_bytes"`
	LeastScratchBytes int64  `json:"least_scratch_bytes"`
	ScratchBytes      int64  `json:"scratch_bytes"` // under the budget
	SpillBytes        int64  `json:"spill_bytes,omitempty"`
	StreamedBytes     int64  `json:"streamed_bytes,omitempty"` // read for each evaluation
	Mode              string `json:"mode"`
}

// The ways a stage runs under a budget.
const (
	modeWhole    = "whole"
	modeBands    = "in bands"
	modeStreamed = "streamed" // or "streamed, in bands"
	modeRefused  = "does not fit"
)

func planCommand() *cobra.Command {
	var (
		stack  stackFlags
		req    stageengine.EstimateRequest
		scale  float32
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:     "plan MODEL",
		Short:   "Tell the memory an image takes in each stage, without loading anything",
		Example: "  triptych plan starter --width 1024 --height 1024 --memory-budget 256MiB",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("expected one model, its name or its directory, got %d arguments", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			path, name, ok, err := modelDirectory(args[0])
			if err != nil {
				return err
			}
			if ok {
				stack.models = []string{path}
			}
			for flag, side := range map[string]int{"width": req.WidthPx, "height": req.HeightPx} {
				if cmd.Flags().Changed(flag) && side == 0 {
					return stage.Invalid(stage.SizeUnsupported, flag, side, "a positive number of pixels")
				}
			}
			stack.lease = leaseOff // nothing is held
			runtime := stack.runtime("", stack.models...)
			o, closeDevice, err := runtime.open()
			if err != nil {
				return err
			}
			defer closeDevice() //nolint:errcheck // nothing was loaded
			req.Model, req.Guided = name, scale > 1
			e, err := stageengine.NewEstimate(cmd.Context(), o, req)
			if err != nil {
				return err
			}
			p, refused := newPlan(name, e, int64(stack.budget))
			if err := p.print(cmd.OutOrStdout(), asJSON); err != nil {
				return err
			}
			return refused
		},
	}
	stack.add(cmd)
	flags := cmd.Flags()
	flags.IntVar(&req.WidthPx, "width", 0, "width in pixels (default: the model's own)")
	flags.IntVar(&req.HeightPx, "height", 0, "height in pixels (default: the model's own)")
	flags.Float32Var(&scale, "guidance-scale", 5, "up to 1 is unguided, which takes less")
	flags.BoolVar(&asJSON, "json", false, "print JSON, with exact bytes")
	return cmd
}

// newPlan judges an estimate by a budget, 0 for none; refused is about the first stage that exceeds it.
func newPlan(model string, e stageengine.Estimate, budget int64) (p plan, refused error) {
	p = plan{Model: model, WidthPx: e.WidthPx, HeightPx: e.HeightPx, BudgetBytes: budget}
	for _, s := range e.Stages {
		needed := s.Footprint.WeightsBytes + s.Footprint.ScratchBytes
		row := planStage{
			Stage: s.Kind.String(), WeightsBytes: s.Footprint.WeightsBytes, MostScratchBytes: s.MostScratch,
			LeastScratchBytes: s.LeastScratch, ScratchBytes: s.Footprint.ScratchBytes, SpillBytes: s.SpillBytes, StreamedBytes: s.StreamedBytes, Mode: modeWhole,
		}
		switch {
		case budget > 0 && needed > budget:
			row.Mode = modeRefused
			if refused == nil {
				refused = stage.DoesNotFit(s.Kind, model, needed, budget, budget)
			}
		case s.StreamedBytes > 0 && s.InBands:
			row.Mode = modeStreamed + ", " + modeBands
		case s.StreamedBytes > 0:
			row.Mode = modeStreamed
		case s.InBands:
			row.Mode = modeBands
		}
		p.Stages = append(p.Stages, row)
		p.LeastBudgetBytes = max(p.LeastBudgetBytes, s.Footprint.WholeBytes+s.LeastScratch)
		p.LeastStreamedBudgetBytes = max(p.LeastStreamedBudgetBytes, s.LeastWeights+s.LeastScratch)
		p.AllBytes += s.Footprint.WholeBytes + s.MostScratch
	}
	return p, refused
}

func (p plan) print(w io.Writer, asJSON bool) error {
	if asJSON {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		return out.Encode(p)
	}
	size := func(n int64) string { return humanize.IBytes(uint64(n)) }
	const mib = 1 << 20
	budget := func(n int64) string { return fmt.Sprintf("%dMiB", (n+mib-1)/mib) } // rounded up, to be used as it stands
	fmt.Fprintf(w, "%s %dx%d\n\n", p.Model, p.WidthPx, p.HeightPx)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	some := func(n int64) string {
		if n == 0 {
			return "-"
		}
		return size(n)
	}
	fmt.Fprintln(t, "STAGE\tWEIGHTS\tSCRATCH\tAT LEAST\tRUNS\tTAKES\tON DISK\tREADS A STEP")
	for _, s := range p.Stages {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Stage, size(s.WeightsBytes), size(s.MostScratchBytes), size(s.LeastScratchBytes),
			s.Mode, size(s.WeightsBytes+s.ScratchBytes), some(s.SpillBytes), some(s.StreamedBytes))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nThe smallest memory budget is %s, or with weights streamed %s; with %s nothing is evicted.\n",
		budget(p.LeastBudgetBytes), budget(p.LeastStreamedBudgetBytes), budget(p.AllBytes))
	return err
}
