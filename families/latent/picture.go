package latent

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// What is drawn from a picture: image to image as in SDEdit (Meng et al. 2022, arXiv 2108.01073), which begins with the
// picture and so much noise, and under a mask as in Blended Latent Diffusion (Avrahami et al. 2023, arXiv 2206.02779), which
// puts the picture back around it after every step. A U-Net with more input channels sees the mask and the masked picture
// beside the latents instead, as the inpainting models of Stable Diffusion do. References: diffusers' StableDiffusionImg2ImgPipeline and
// StableDiffusionInpaintPipeline.

func (m *Model) encodeImageRuns(nets []family.Network, o stage.Options) ([]family.Run, error) {
	return one(m.momentsRun(nets[0], 0, o))
}

func (m *Model) momentsRun(net family.Network, member int, o stage.Options) (family.Run, error) {
	tape, err := net.(*modeldir.ImageEncoder).Tape(1, int(o[family.Height].Int), int(o[family.Width].Int))
	return family.Run{Member: member, Tape: tape, Image: true}, err
}

// encodeImage gives the moments of a picture's latents, and a mask in their size.
func (m *Model) encodeImage(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
	picture, err := resized(req, ValueInitImage)
	if err != nil {
		return stage.Result{}, err
	}
	var out stage.Values
	h, w := m.latentSize(req.Options)
	pictures := map[string][]float32{ValueMoments: picture.Floats()}
	if req.Values.Has(ValueMask) {
		mask, err := resized(req, ValueMask)
		if err != nil {
			return stage.Result{}, err
		}
		out = append(out, family.Tensor(ValueMaskLatents, m.maskLatents(mask, h, w), 1, 1, h, w))
		if m.Inpaints() {
			pictures[ValueMaskedMoments] = masked(picture, mask)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pictures)) {
		moments, err := m.moments(ctx, s, 0, req.Options, pictures[name])
		if err != nil {
			return stage.Result{}, err
		}
		out = append(out, family.Tensor(name, moments, 1, 2*m.VAE.LatentChannels, h, w))
	}
	return stage.Result{Values: out}, nil
}

// moments are those of pixels in the size that is drawn, channels first, by the network of a member.
func (m *Model) moments(ctx context.Context, s family.Session, member int, o stage.Options, pixels []float32) ([]float32, error) {
	r, err := m.momentsRun(s.Network(member), member, o)
	if err != nil {
		return nil, err
	}
	h, w := m.latentSize(o)
	channels := 2 * m.VAE.LatentChannels
	last := make([]float32, channels*h*w)
	if err := family.Evaluate(ctx, s, r, modeldir.InputImage, pixels, modeldir.OutputMoments, last); err != nil {
		return nil, err
	}
	if !family.Finite(last) {
		return nil, s.NotFinite(member, "moments")
	}
	moments := make([]float32, len(last))
	nn.ToChannelsFirst(moments, last, 1, channels, h*w)
	return moments, nil
}

// decoded is a picture of a request.
func decoded(req stage.WorkRequest, name string) (imaging.Pixels, error) {
	v, _ := req.Values.Get(name)
	p, err := imaging.Decode(v.File.Data)
	var refused *imaging.Error
	if errors.As(err, &refused) {
		return p, stage.Invalid(stage.InvalidField, name, refused.Got, refused.Expected)
	}
	return p, err
}

// resized is a picture of a request in the size that is drawn.
func resized(req stage.WorkRequest, name string) (imaging.Pixels, error) {
	p, err := decoded(req, name)
	if err != nil {
		return p, err
	}
	return p.Resize(int(req.Options[family.Width].Int), int(req.Options[family.Height].Int)), nil
}

// white is the grey, of 255, from which on a mask means a pixel.
const white = 128

// maskLatents is 1 for every latent whose first pixel is white, rather than black.
func (m *Model) maskLatents(p imaging.Pixels, h, w int) []float32 {
	out := make([]float32, h*w)
	for i := range out {
		if p.Grey(i%w*m.VAE.Factor(), i/w*m.VAE.Factor()) >= white {
			out[i] = 1
		}
	}
	return out
}

// masked are the pixels of a picture, grey where a mask of its size is white.
func masked(p, mask imaging.Pixels) []float32 {
	out := p.Floats()
	const channels = 3
	for i := range len(out) / channels {
		if mask.Grey(i%p.Width, i/p.Width) >= white {
			clear(out[i*channels:][:channels])
		}
	}
	return out
}

// openPicture draws the start's noise and the latents of the request's picture, in the reference's order, and reads the mask.
func (d *denoising) openPicture(moments stage.Value) (err error) {
	inpaints := d.Inpaints()
	if !inpaints || d.req.Options[OptionStrength].Float < 1 {
		if d.picture, err = d.sample(moments); err != nil {
			return err
		}
	}
	d.drawAt(d.draws, d.noise)
	d.draws++
	mask, there := d.req.Values.Get(ValueMaskLatents)
	if !there {
		return nil
	}
	places, err := family.Floats(mask)
	if err != nil {
		return err
	}
	if !inpaints {
		d.mask = places
		d.draws++ // for the masked picture, which this U-Net does not see
		return nil
	}
	maskedMoments, _ := d.req.Values.Get(ValueMaskedMoments)
	picture, err := d.sample(maskedMoments)
	d.beside = slices.Concat(places, picture)
	return err
}

// sample draws latents from their moments, channels first.
func (d *denoising) sample(v stage.Value) ([]float32, error) {
	h, w := d.latentSize(d.req.Options)
	moments, err := d.sized(v, d.req.Options)
	if err != nil {
		return nil, err
	}
	channels := d.VAE.LatentChannels
	draw, last := make([]float32, len(d.noise)), make([]float32, len(moments))
	d.source.Draw(d.draws, draw)
	d.draws++
	nn.ToChannelsLast(last, moments, 1, 2*channels, h*w)
	noise := make([]float32, len(draw))
	nn.ToChannelsLast(noise, draw, 1, channels, h*w)
	z := d.VAE.Sample(last, noise)
	d.VAE.Scale(z)
	out := make([]float32, len(z))
	nn.ToChannelsFirst(out, z, 1, channels, h*w)
	return out, nil
}

// keep is latents before evaluation i with the picture, as noisy as there, where the mask leaves it.
func (d *denoising) keep(i int, latents []float32) []float32 {
	out := make([]float32, len(latents))
	d.steps.Noised(i, d.picture, d.noise, out)
	for j, v := range latents {
		mask := d.mask[j%len(d.mask)]
		out[j] = float32((1-mask)*out[j]) + float32(mask*v)
	}
	return out
}
