package main

import (
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
)

// operations counts the floating point operations of a row's matrix products, convolutions and attentions, from the
// tapes that the stages run. What is not in them, norms and activations, is not counted.
func operations(model string) (map[string]float64, error) {
	dir, err := modeldir.Open(model)
	if err != nil {
		return nil, err
	}
	tokens := dir.Text.MaxPositions
	text, err := dir.TextEncoder()
	if err != nil {
		return nil, err
	}
	defer text.Close() //nolint:errcheck // it was only read
	unet, err := dir.Denoiser()
	if err != nil {
		return nil, err
	}
	defer unet.Close() //nolint:errcheck // it was only read
	vae, err := dir.ImageDecoder()
	if err != nil {
		return nil, err
	}
	defer vae.Close() //nolint:errcheck // it was only read
	out := map[string]float64{}
	for row, record := range map[string]func() (*device.Tape, error){
		"encode": func() (*device.Tape, error) { return text.Tape(2, tokens) },
		"step":   func() (*device.Tape, error) { return unet.Tape(2, latentSide, latentSide, tokens) },
		"decode": func() (*device.Tape, error) { return vae.Tape(1, latentSide, latentSide) },
	} {
		tape, err := record()
		if err != nil {
			return nil, err
		}
		out[row] = 2 * products(tape)
	}
	out["denoise"] = steps * out["step"]
	return out, nil
}

// products counts the multiply-adds of a tape.
func products(tape *device.Tape) float64 {
	sum := 0.0
	count := func(dims ...[]int) {
		p := 1.0
		for _, d := range dims {
			for _, n := range d {
				p *= float64(n)
			}
		}
		sum += p
	}
	for _, op := range tape.Ops() {
		switch o := op.(type) {
		case *device.Gemm:
			count(o.Out.Shape, tape.Manifest().At(o.W).Shape[1:])
		case *device.Conv2D:
			count(o.Out.Shape, tape.Manifest().At(o.W).Shape[1:])
		case *device.Attention:
			count(o.Q.Shape, o.K.Shape[1:2], []int{2})
		}
	}
	return sum
}
