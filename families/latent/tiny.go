package latent

import (
	"context"
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/taesd"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// maxPreviewSide is that of previews by a tiny autoencoder, in pixels: larger ones are scaled down, to stay small as files.
const maxPreviewSide = 512

// tinyRun is that of the tiny autoencoder among the members of a turn; ok is whether there is one. The error is a stage.Error if it is
// for other latents.
func (m *Model) tinyRun(nets []family.Network, o stage.Options) (r family.Run, ok bool, err error) {
	for i, net := range nets {
		tiny, is := net.(*modeldir.TinyDecoder)
		if !is {
			continue
		}
		if h := tiny.Half; h.Latents != m.VAE.LatentChannels || h.Pixel != m.VAE.Factor() || ok {
			return r, true, stage.Invalid(stage.InvalidField, family.PreviewDecoder, o[family.PreviewDecoder],
				fmt.Sprintf("one tiny autoencoder of latents with %d channels, a place of which is %d pixels wide, got %s with %d and %d", m.VAE.LatentChannels, m.VAE.Factor(), tiny.Name(), h.Latents, h.Pixel))
		}
		h, w := m.latentSize(o)
		tape, err := tiny.Tape(h, w)
		if err != nil {
			return r, true, err
		}
		r, ok = family.Run{Member: i, Tape: tape, Image: true}, true
	}
	return r, ok, nil
}

// tinyPreviews decodes estimates beside the U-Net.
type tinyPreviews struct {
	s   family.Session
	r   family.Run
	run device.Run
}

// openTiny starts the run of a tiny autoencoder, where the request names one and wants previews.
func (d *denoising) openTiny(s family.Session) (*tinyPreviews, error) {
	if d.req.PreviewEveryNSteps == 0 {
		return nil, nil
	}
	r, ok, err := d.tinyRun(Networks(s, d.req), d.req.Options)
	if err != nil || !ok {
		return nil, err
	}
	run, err := s.Start(r)
	return &tinyPreviews{s, r, run}, err
}

// image decodes latents, channels first.
func (p *tinyPreviews) image(ctx context.Context, latents []float32, channels, h, w int) (stage.Value, error) {
	z := make([]float32, len(latents))
	nn.ToChannelsLast(z, latents, 1, channels, h*w)
	taesd.Clamp(z)
	shape := p.r.Tape.Outputs()[0].Array.Shape
	pixels := make([]float32, shape[1]*shape[2]*shape[3])
	if err := family.First(
		func() error { return p.run.Write(modeldir.InputLatents, z) },
		func() error { return p.run.Execute(ctx) },
		func() error { return p.run.Read(modeldir.OutputImage, pixels) },
	); err != nil {
		return stage.Value{}, p.s.Failed(p.r, p.run, err)
	}
	taesd.Signed(pixels)
	shown := imaging.FromImage(imaging.FromFloats(pixels, shape[1], shape[2]))
	if most := max(shown.Width, shown.Height); most > maxPreviewSide {
		shown = shown.Resize(max(1, shown.Width*maxPreviewSide/most), max(1, shown.Height*maxPreviewSide/most))
	}
	file, err := family.File(shown.Image(), imaging.Options{Format: imaging.PNG})
	return stage.Value{Name: valuePreview, File: file}, err
}
