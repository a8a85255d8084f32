package toy

import (
	"context"
	"fmt"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

func (m *model) decodeRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	h, w := family.Latents(o, patch)
	tape, err := nets[0].(*painter).Tape(h * w)
	return []family.Run{{Tape: tape}}, err
}

// decode makes an image file of the latents of a frame.
func (m *model) decode(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
	format, err := family.FileFormat(req)
	if err != nil {
		return stage.Result{}, err
	}
	runs, err := m.decodeRuns([]family.Network{s.Network(0)}, req.Options)
	if err != nil {
		return stage.Result{}, err
	}
	h, w := family.Latents(req.Options, patch)
	v, _ := req.Values.Get(valueLatents)
	if shape := v.Tensor.Shape; shape[1] != h || shape[2] != w {
		return stage.Result{}, stage.Invalid(stage.TensorInvalid, v.Name, shape, fmt.Sprintf("[1, %d, %d, %d], as %s and %s are", h, w, channels, family.Height, family.Width))
	}
	latents, err := family.Floats(v)
	if err != nil {
		return stage.Result{}, err
	}
	patches := make([]float32, h*w*patch*patch*rgb)
	if err := family.Evaluate(ctx, s, runs[0], modeldir.InputLatents, latents, modeldir.OutputImage, patches); err != nil {
		return stage.Result{}, err
	}
	if !family.Finite(patches) {
		return stage.Result{}, s.NotFinite(0, "pixels")
	}
	width, height := w*patch, h*patch
	pixels := make([]float32, 0, len(patches))
	for y := range height {
		for x := range w { // a row of each patch
			at := ((y/patch*w + x) * patch) + y%patch
			pixels = append(pixels, patches[at*patch*rgb:][:patch*rgb]...)
		}
	}
	file, err := family.ImageFile(pixels, height, width, format)
	if err != nil {
		return stage.Result{}, err
	}
	return stage.Result{Values: stage.Values{{Name: valueImage, File: file}}}, nil
}
