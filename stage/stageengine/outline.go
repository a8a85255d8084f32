package stageengine

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/stage"
)

// ofOutline plans stages that nobody can ask, as they would be: one network after another in a stage, each with its own
// scratch; the encoder beside the states of the prompts used last; the decoder within the same limits.
func (e *Estimate) ofOutline(o Options, plan stage.PlanRequest) error {
	m := e.outline
	for kind, parts := range stagesOf(m) {
		row := StageEstimate{Kind: stage.Kind(kind)}
		if row.Kind == stage.KindDecoder {
			plan.Batch = 1
		}
		if len(parts) > 0 {
			if err := e.ofParts(o, &row, parts, plan); err != nil {
				return err
			}
			e.Stages = append(e.Stages, row)
		}
	}
	return nil
}

// stagesOf are the parts of an outline by the kind of their stage.
func stagesOf(m *modeldir.Outline) [stage.KindDecoder + 1][]*modeldir.Part {
	return [...][]*modeldir.Part{stage.KindEncoder: m.Text, stage.KindDenoiser: {m.Denoiser}, stage.KindDecoder: {m.Decoder}}
}

func (e *Estimate) ofParts(o Options, row *StageEstimate, parts []*modeldir.Part, plan stage.PlanRequest) error {
	d := &Decoder{&shelf[*modeldir.ImageDecoder]{Options: o, kind: row.Kind}} // for its limits
	m, b := parts[0].Manifest, &book[*modeldir.ImageDecoder]{}
	if len(parts) > 1 {
		m = &device.Manifest{}
		for _, p := range parts {
			m.Params = append(m.Params, p.Manifest.Params...)
		}
	}
	if row.Kind == stage.KindEncoder {
		var err error
		if b.store, err = newStore(o.Device, m, rememberedPrompts, e.outline.Tokens, e.outline.ContextDim); err != nil {
			return d.fault(err)
		}
	}
	held, _ := d.loadPlan(b, m, 0)
	whole := o.Device.WeightBytes(m, held) + b.beside()
	tape, scratch, spill := uses(m), int64(0), int64(0)
	for _, p := range parts {
		bytes, limits := int64(0), device.RunOptions{}
		if p.Record == nil {
			bytes, row.AtLeast = p.AtLeast(plan.Batch, plan.LatentHeight, plan.LatentWidth), p.Formula
		} else {
			recorded, err := p.Record(plan.Batch, plan.LatentHeight, plan.LatentWidth)
			if err != nil {
				return d.fault(err)
			}
			if row.Kind == stage.KindDecoder {
				limits = d.budgeted(whole)
			}
			if bytes, spill, err = taking(o.Device, recorded, limits); err != nil {
				return d.fault(err)
			}
			if len(parts) == 1 {
				tape = recorded
			}
		}
		scratch = max(scratch, bytes)
	}
	if budget := o.Device.Memory().CapBytes; budget > 0 && whole+scratch > budget {
		held, _ = d.loadPlan(b, m, stage.Footprint{ScratchBytes: scratch}.LimitWithin(budget))
	}
	row.Footprint = stage.Footprint{WeightsBytes: o.Device.WeightBytes(m, held) + b.beside(), ScratchBytes: scratch, WholeBytes: whole, SpillBytes: spill}
	row.MostScratch, row.LeastScratch = scratch, scratch
	row.ofManifest(o.Device, m, held, b.beside())
	if err := row.ofTape(o.Device, tape, held); err != nil {
		return d.fault(err)
	}
	if row.Kind == stage.KindDecoder {
		return d.estimateBands(tape, row)
	}
	return nil
}

// uses is a tape that multiplies by every matrix once, in the order of the manifest: enough for a device to tell what an
// evaluation reads of them.
func uses(m *device.Manifest) *device.Tape {
	c := &device.Manifest{}
	t := device.NewTape(c)
	for _, p := range m.Params {
		if w := c.Add(p); p.Layout == device.Matrix {
			t.Gemm(device.Gemm{X: t.Input(p.Name, 1, p.Shape[1]), W: w})
		}
	}
	return t
}

// describe fills in the networks of every stage.
func (e *Estimate) describe() {
	parts := stagesOf(e.outline)
	for i := range e.Stages {
		for _, p := range parts[e.Stages[i].Kind] {
			n := NetworkEstimate{Folder: p.Folder, Class: p.Class, Present: p.Complete, Runs: p.Record != nil, Warnings: p.Warnings}
			byType := map[string]int64{}
			for _, param := range p.Manifest.Params {
				elems, _ := param.Shape.Elems()
				n.Parameters += int64(elems)
				n.StoredBytes += int64(elems * param.DType.Size())
				name := param.DType.String()
				if byType[name] += int64(elems); byType[name] > byType[n.DType] {
					n.DType = name
				}
			}
			e.Stages[i].Networks = append(e.Stages[i].Networks, n)
		}
	}
}
