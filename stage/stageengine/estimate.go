package stageengine

import (
	"context"
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/stage"
)

// EstimateRequest is one image of a model. Sides of 0 are the model's own.
type EstimateRequest struct {
	Model             string
	WidthPx, HeightPx int
	Guided            bool // with a negative prompt, which doubles encoder and denoiser
}

// Estimate is what making the image takes.
type Estimate struct {
	WidthPx, HeightPx int
	Stages            []StageEstimate // in pipeline order
}

// StageEstimate is one stage's part, in bytes.
type StageEstimate struct {
	Kind         stage.Kind
	Footprint    stage.Footprint // what the stage's Plan says on this device
	MostScratch  int64           // scratch however large the budget is
	LeastScratch int64           // scratch with the smallest budget that the stage runs in
	InBands      bool
	SpillBytes   int64 // of a temporary file, if the stage runs in bands

	LeastWeights  int64 // held if the stage streams all that can be
	StreamedBytes int64 // read from the model's files for each evaluation of the network
}

// planner is a stage that knows the tape it runs for a request.
type planner interface {
	stage.Resident
	planned(req stage.PlanRequest) (*device.Tape, error)
	restrict(req stage.PlanRequest, m *device.Manifest)
}

// restrict has the network of a request streamed as a load within its limit would.
func (s *shelf[N]) restrict(req stage.PlanRequest, m *device.Manifest) {
	s.limit(s.books[req.Model], m, req.LimitBytes)
}

// streamer is a device that knows what an execution of a tape, its prologue apart, reads of streamed parameters.
type streamer interface {
	StreamedBytes(t *device.Tape) int64
}

// NewEstimate plans an image in the three stages on o.Device, as services on it would whose orchestrator has what does not fit
// streamed. Nothing is loaded.
// SizeUnsupported, ModelNotFound, ModelInvalid.
func NewEstimate(ctx context.Context, o Options, req EstimateRequest) (Estimate, error) {
	encoder, denoiser, decoder := NewEncoder(o), NewDenoiser(o), NewDecoder(o)
	for _, err := range []error{problem(encoder.shelf, req.Model), problem(denoiser.shelf, req.Model), problem(decoder.shelf, req.Model)} {
		if err != nil {
			return Estimate{}, err
		}
	}
	latent, factor := denoiser.books[req.Model].component, decoder.books[req.Model].component.SpatialFactor
	multiple := latent.LatentMultiple * factor
	e := Estimate{WidthPx: req.WidthPx, HeightPx: req.HeightPx}
	for _, side := range []struct {
		field string
		value *int
	}{{"width", &e.WidthPx}, {"height", &e.HeightPx}} {
		if *side.value == 0 {
			*side.value = latent.LatentDefault * factor
		}
		if *side.value < 1 || *side.value%multiple != 0 || *side.value > maxLatentSide*factor {
			return Estimate{}, stage.Invalid(stage.SizeUnsupported, side.field, *side.value, fmt.Sprintf("a multiple of %d up to %d pixels", multiple, maxLatentSide*factor))
		}
	}
	batch := 1
	if req.Guided {
		batch = 2
	}
	plan := stage.PlanRequest{Model: req.Model, Batch: batch, LatentHeight: e.HeightPx / factor, LatentWidth: e.WidthPx / factor}
	for _, s := range []struct {
		kind stage.Kind
		planner
	}{{stage.KindEncoder, encoder}, {stage.KindDenoiser, denoiser}, {stage.KindDecoder, decoder}} {
		if s.kind == stage.KindDecoder {
			plan.Batch = 1
		}
		f, err := s.Plan(ctx, plan)
		if err != nil {
			return Estimate{}, err
		}
		tape, err := s.planned(plan)
		if err != nil {
			return Estimate{}, err
		}
		if budget := o.Device.Memory().CapBytes; budget > 0 && f.WeightsBytes+f.ScratchBytes > budget {
			plan.LimitBytes = max(1, budget-f.ScratchBytes)
			if f, err = s.Plan(ctx, plan); err != nil {
				return Estimate{}, err
			}
			s.restrict(plan, tape.Manifest())
			plan.LimitBytes = 0
		}
		row := StageEstimate{Kind: s.kind, Footprint: f, MostScratch: f.ScratchBytes, LeastScratch: f.ScratchBytes}
		least := device.Manifest{Params: tape.Manifest().Params, Streamed: true}
		if d, ok := o.Device.(limiter); ok {
			least.ResidentBytes = d.ResidentWithin(&least, 1)
		}
		row.LeastWeights = f.WeightsBytes - o.Device.WeightBytes(tape.Manifest()) + o.Device.WeightBytes(&least)
		if d, ok := o.Device.(streamer); ok {
			row.StreamedBytes = d.StreamedBytes(tape)
		}
		e.Stages = append(e.Stages, row)
	}
	if err := decoder.estimateBands(plan, &e.Stages[len(e.Stages)-1]); err != nil {
		return Estimate{}, err
	}
	return e, nil
}

func problem[N network](s *shelf[N], model string) error {
	_, err := s.find(model)
	return err
}

// estimateBands adds what decoding takes without a budget, and in the smallest bands.
func (d *Decoder) estimateBands(req stage.PlanRequest, e *StageEstimate) error {
	tape, err := d.tape(d.books[req.Model], req.LatentHeight, req.LatentWidth)
	if err != nil {
		return err
	}
	for limit, bytes := range map[int64]*int64{MaxImageScratch: &e.MostScratch, 0: &e.LeastScratch} {
		if *bytes, err = d.Device.Within(limit).ScratchBytes(tape); err != nil {
			return d.fault(err)
		}
	}
	whole, err := d.Device.ScratchBytes(tape)
	if err != nil {
		return d.fault(err)
	}
	if e.InBands = e.Footprint.ScratchBytes < whole; e.InBands {
		arrays, err := device.PlanScratch(tape)
		if err != nil {
			return d.fault(err)
		}
		e.SpillBytes = arrays.Bytes
	}
	return nil
}
