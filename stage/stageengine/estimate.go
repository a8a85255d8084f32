package stageengine

import (
	"context"
	"errors"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
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
	Pipeline          string          // the model's class
	Runs              bool            // the stages can run it
	Present           bool            // all of its weights are there
	Stages            []StageEstimate // in pipeline order

	outline *modeldir.Outline
}

// StageEstimate is one stage's part, in bytes.
type StageEstimate struct {
	Kind         stage.Kind
	Networks     []NetworkEstimate // in the order they are used
	Footprint    stage.Footprint   // what the stage's Plan says on this device
	MostScratch  int64             // scratch however large the budget is
	LeastScratch int64             // scratch with the smallest budget that the stage runs in
	InBands      bool
	SpillBytes   int64 // of a temporary file, if the stage runs in bands

	MostWeights   int64 // held if the stage streams nothing
	LeastWeights  int64 // held if it streams all that helps
	ResidentBytes int64 // of the weights, if it streams the others
	StreamedBytes int64 // read from the model's files for each evaluation of the network
	// Convolutions are how many each algorithm computes, by its name, in one evaluation; nil if the device does not tell.
	Convolutions map[string]int
	// AtLeast is the formula by which scratch is estimated from below, for want of a network that the engine can run;
	// empty if scratch is exact.
	AtLeast string
}

// NetworkEstimate is one network of a stage.
type NetworkEstimate struct {
	Folder, Class string
	Parameters    int64
	StoredBytes   int64
	DType         string   // as stored, of most parameters
	Present       bool     // its weights are there; else their type may be assumed
	Runs          bool     // the engine has the network
	Warnings      []string // see stage.Component
}

// planner is a stage that knows the tape it runs for a request.
type planner interface {
	stage.Resident
	planned(req stage.PlanRequest) (*device.Tape, error)
	held(req stage.PlanRequest, m *device.Manifest) device.LoadPlan
}

// held is how a load within the limit of a request holds the network.
func (s *shelf[N]) held(req stage.PlanRequest, m *device.Manifest) device.LoadPlan {
	plan, _ := s.loadPlan(s.book(req.Model), m, req.LimitBytes)
	return plan
}

// NewEstimate plans an image in the three stages on o.Device, as services on it would whose orchestrator has what does not fit
// streamed. Nothing is loaded. A model whose
// weights are absent, or whose networks the stages cannot run yet, is planned from its configs and headers.
// SizeUnsupported, ModelNotFound, ModelInvalid.
func NewEstimate(ctx context.Context, o Options, req EstimateRequest) (Estimate, error) {
	path, err := o.Library.path(req.Model)
	if err != nil {
		return Estimate{}, err
	}
	outline, err := modeldir.OpenOutline(path, modeldir.Keep{
		Encoder: o.Precision[stage.KindEncoder], Denoiser: o.Precision[stage.KindDenoiser], Decoder: o.Precision[stage.KindDecoder],
	})
	if err != nil {
		return Estimate{}, modelError(err, stage.KindEncoder, req.Model, path)
	}
	o.Library = o.Library.only(req.Model)
	e := Estimate{WidthPx: req.WidthPx, HeightPx: req.HeightPx, Pipeline: outline.Pipeline, Runs: outline.Runs, Present: outline.Complete(), outline: outline}
	plan, err := e.request(outline, req)
	if err != nil {
		return Estimate{}, err
	}
	if e.Runs && e.Present {
		err = e.ofStages(ctx, o, plan)
	} else {
		err = e.ofOutline(o, plan)
	}
	if err != nil {
		return Estimate{}, err
	}
	e.describe()
	return e, nil
}

// request fills in the sides and tells what encoder and denoiser are asked for.
func (e *Estimate) request(m *modeldir.Outline, req EstimateRequest) (stage.PlanRequest, error) {
	factor := m.SpatialFactor
	multiple := m.LatentMultiple * factor
	for _, side := range []struct {
		field string
		value *int
		own   int
	}{{"width", &e.WidthPx, m.LatentWidth}, {"height", &e.HeightPx, m.LatentHeight}} {
		if *side.value == 0 {
			*side.value = side.own * factor
		}
		if err := stage.CheckSide(side.field, *side.value, multiple, maxLatentSide*factor, "pixels"); err != nil {
			return stage.PlanRequest{}, err
		}
	}
	batch := 1
	if req.Guided && m.Guided {
		batch = 2
	}
	return stage.PlanRequest{Model: req.Model, Batch: batch, LatentHeight: e.HeightPx / factor, LatentWidth: e.WidthPx / factor}, nil
}

// diskless is a decoder that is planned whatever room the disk has here and now.
type diskless struct{ *Decoder }

// Plan tells what a request takes.
func (d diskless) Plan(_ context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	return d.footprint(req)
}

// ofStages asks the stages themselves.
func (e *Estimate) ofStages(ctx context.Context, o Options, plan stage.PlanRequest) error {
	encoder, denoiser, decoder := NewEncoder(o), NewDenoiser(o), NewDecoder(o)
	for _, s := range []struct {
		kind stage.Kind
		planner
	}{{stage.KindEncoder, encoder}, {stage.KindDenoiser, denoiser}, {stage.KindDecoder, diskless{decoder}}} {
		if s.kind == stage.KindDecoder {
			plan.Batch = 1
		}
		f, err := s.Plan(ctx, plan)
		if err != nil {
			return err
		}
		tape, err := s.planned(plan)
		if err != nil {
			return err
		}
		if budget := o.Device.Memory().CapBytes; budget > 0 && f.WeightsBytes+f.ScratchBytes > budget {
			plan.LimitBytes = f.LimitWithin(budget)
			if f, err = s.Plan(ctx, plan); err != nil {
				return err
			}
		}
		held := s.held(plan, tape.Manifest())
		plan.LimitBytes = 0
		row := StageEstimate{Kind: s.kind, Footprint: f, MostScratch: f.ScratchBytes, LeastScratch: f.ScratchBytes}
		row.ofManifest(o.Device, tape.Manifest(), held, f.WeightsBytes-o.Device.WeightBytes(tape.Manifest(), held))
		if err := row.ofTape(o.Device, tape, held); err != nil {
			return err
		}
		if s.kind == stage.KindDecoder {
			if err := decoder.estimateBands(tape, &row); err != nil {
				return err
			}
		}
		e.Stages = append(e.Stages, row)
	}
	return nil
}

// ofManifest fills in what depends on the weights alone; beside those of the networks the stage holds so many bytes.
func (s *StageEstimate) ofManifest(d device.LoadPlanner, m *device.Manifest, held device.LoadPlan, beside int64) {
	s.MostWeights = beside + d.WeightBytes(m, device.LoadPlan{})
	s.LeastWeights = s.MostWeights
	if least, err := d.Fit(m, 1); err == nil { // else it streams nothing
		s.LeastWeights = beside + d.WeightBytes(m, least)
	}
	if held.Streamed {
		s.ResidentBytes = held.ResidentBytes
	}
}

// ofTape fills in what the tape tells.
func (s *StageEstimate) ofTape(d device.Planner, t *device.Tape, held device.LoadPlan) (err error) {
	s.StreamedBytes = d.StreamedBytes(t, held)
	s.Convolutions, err = convolutions(d, t, device.RunOptions{})
	return err
}

// convolutions is nil for a device that does not tell.
func convolutions(d device.RunPlanner, t *device.Tape, o device.RunOptions) (map[string]int, error) {
	counts, err := d.Convolutions(t, o)
	if errors.Is(err, device.ErrUnsupported) {
		return nil, nil
	}
	return counts, err
}

// estimateBands adds what decoding takes without a budget, and in the smallest bands.
func (d *Decoder) estimateBands(tape *device.Tape, e *StageEstimate) error {
	var err error
	whole := int64(0)
	for limit, bytes := range map[int64]*int64{MaxImageScratch: &e.MostScratch, 1: &e.LeastScratch, 0: &whole} {
		if *bytes, err = d.Device.ScratchBytes(tape, device.RunOptions{ScratchLimit: limit}); err != nil {
			return d.fault(err)
		}
	}
	if e.Convolutions, err = convolutions(d.Device, tape, d.budgeted(e.Footprint.WholeBytes)); err != nil {
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
