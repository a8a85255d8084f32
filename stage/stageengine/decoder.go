package stageengine

import (
	"context"
	"errors"
	"fmt"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/vae"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// Decoder is the third stage: latents to image files, and image files to latents.
type Decoder struct {
	*shelf[*modeldir.ImageDecoder]
}

// NewDecoder declares the decoder of every model of the library; none is loaded.
func NewDecoder(o Options) *Decoder {
	return &Decoder{newShelf(o, stage.KindDecoder, (*modeldir.Dir).ImageDecoder,
		func(dir *modeldir.Dir, _ *modeldir.ImageDecoder, b *book[*modeldir.ImageDecoder]) error {
			c := &b.component
			c.LatentChannels, c.SpatialFactor = dir.VAE.LatentChannels, dir.VAE.Factor()
			return nil
		})}
}

// Plan implements stage.Resident.
func (d *Decoder) Plan(_ context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	f, err := d.footprint(req)
	if err != nil || f.SpillBytes == 0 {
		return f, err
	}
	b := d.books[req.Model]
	if err := d.Device.CheckSpill(f.SpillBytes); err != nil {
		return stage.Footprint{}, d.runError(err, b, f.ScratchBytes)
	}
	return f, nil
}

// footprint is what Plan tells, wherever there is room for it.
func (d *Decoder) footprint(req stage.PlanRequest) (stage.Footprint, error) {
	tape, err := d.planned(req)
	if err != nil {
		return stage.Footprint{}, err
	}
	b, err := d.find(req.Model)
	if err != nil {
		return stage.Footprint{}, err
	}
	scratch, spill, err := taking(d.Device, tape, d.budgeted(b.component.WeightsBytes))
	if err != nil {
		return stage.Footprint{}, d.fault(err)
	}
	f := d.holding(b, req.LimitBytes, scratch)
	f.SpillBytes = spill
	return f, nil
}

// taking is the scratch of a tape's run, and its temporary file.
func taking(dev device.RunPlanner, tape *device.Tape, o device.RunOptions) (scratch, spill int64, err error) {
	if scratch, err = dev.ScratchBytes(tape, o); err != nil {
		return 0, 0, err
	}
	spill, err = dev.SpillBytes(tape, o)
	return scratch, spill, err
}

// planned is the tape of a request.
func (d *Decoder) planned(req stage.PlanRequest) (*device.Tape, error) {
	b, err := d.find(req.Model)
	if err != nil {
		return nil, err
	}
	if req.Batch != 1 {
		return nil, stage.Invalid(stage.InvalidField, "batch", req.Batch, "1")
	}
	return d.tape(b, req.LatentHeight, req.LatentWidth)
}

// MaxImageScratch is the most scratch that an image takes: one that needs more (from about 384x384 with the autoencoder of
// Stable Diffusion) is computed in bands, in some 30 MB and a third more time (measured at 512x512), and leaves the memory to the stages
// that would have to be evicted for it.
const MaxImageScratch = 256 << 20

// budgeted has runs take no more than MaxImageScratch, nor than what the device's budget leaves beside weights of
// so many bytes. Plan and Decode both ask it, so that they agree, and of all weights, however few are held, so that they agree
// whatever the decoder was loaded for.
func (d *Decoder) budgeted(weightsBytes int64) device.RunOptions {
	limit := int64(MaxImageScratch)
	if budget := d.Device.Memory().CapBytes; budget > 0 {
		limit = min(limit, max(1, budget-d.Device.OverheadBytes()-weightsBytes))
	}
	return device.RunOptions{ScratchLimit: limit}
}

func (d *Decoder) tape(b *book[*modeldir.ImageDecoder], h, w int) (*device.Tape, error) {
	if err := checkSides(h, w, 1); err != nil {
		return nil, err
	}
	tape, err := b.network().Tape(1, h, w)
	if err != nil {
		return nil, d.fault(err)
	}
	return tape, nil
}

// Decode implements stage.Decoder.
func (d *Decoder) Decode(ctx context.Context, req stage.DecodeRequest) (stage.Image, error) {
	options, err := imageOptions(req)
	if err != nil {
		return stage.Image{}, err
	}
	b, done, err := d.use(ctx, req.Model)
	if err != nil {
		return stage.Image{}, err
	}
	defer done()
	s := req.Latent.Shape
	if len(s) != 4 || s[0] != 1 || s[1] != b.component.LatentChannels {
		return stage.Image{}, stage.Invalid(stage.TensorInvalid, "latents", s, fmt.Sprintf("[1, %d, height, width]", b.component.LatentChannels))
	}
	z, err := req.Latent.Float32s()
	if err != nil || !finite(z) {
		return stage.Image{}, stage.Invalid(stage.TensorInvalid, "latents", req.Latent.DType, "finite F32, F16 or BF16 values of the size the shape needs")
	}
	tape, err := d.tape(b, s[2], s[3])
	if err != nil {
		return stage.Image{}, err
	}
	b.network().Config.Unscale(z)
	last := make([]float32, len(z))
	nn.ToChannelsLast(last, z, 1, s[1], s[2]*s[3])
	height, width := s[2]*b.component.SpatialFactor, s[3]*b.component.SpatialFactor
	pixels := make([]float32, height*width*vae.ImageChannels)
	if err := d.evaluate(ctx, d.budgeted(b.component.WeightsBytes), b, tape, b.weights, modeldir.InputLatents, last, modeldir.OutputImage, pixels); err != nil {
		return stage.Image{}, err
	}
	if !finite(pixels) {
		return stage.Image{}, d.notFinite(b, "pixels")
	}
	data, err := imaging.Encode(imaging.FromFloats(pixels, height, width), options)
	if err != nil { // not of the options, which were checked
		return stage.Image{}, d.fault(err)
	}
	return stage.Image{Format: req.Format, WidthPx: width, HeightPx: height, Data: data}, nil
}

// imageOptions checks how an image is to be encoded: what the encoding refuses is refused before the work.
func imageOptions(req stage.DecodeRequest) (imaging.Options, error) {
	o := imaging.Options{Quality: req.Quality}
	switch req.Format {
	case stage.PNG:
		o.Format = imaging.PNG
	case stage.JPEG:
		o.Format = imaging.JPEG
	case stage.WebP:
		o.Format = imaging.WEBP
	default:
		return o, stage.Invalid(stage.InvalidField, "format", req.Format, "png, jpeg or webp")
	}
	if req.Quality < 0 || req.Quality > 100 {
		return o, stage.Invalid(stage.InvalidField, "quality", req.Quality, "1 to 100, or 0 for the default")
	}
	for _, t := range req.Text {
		o.Text = append(o.Text, imaging.Text{Key: t.Key, Value: t.Value})
	}
	var refused *imaging.Error
	if err := o.Check(); errors.As(err, &refused) {
		return o, stage.Invalid(stage.InvalidField, refused.Subject, refused.Got, refused.Expected)
	}
	return o, nil
}

// evaluate runs a tape with one input and one output.
func (d *Decoder) evaluate(ctx context.Context, o device.RunOptions, b *book[*modeldir.ImageDecoder], tape *device.Tape, weights device.Weights, input string, in []float32, output string, out []float32) error {
	run, err := d.Device.NewRun(tape, weights, o)
	if err != nil {
		return d.runError(err, b, 0)
	}
	defer run.Free()
	if err := first(
		func() error { return run.Write(input, in) },
		func() error { return run.Execute(ctx) },
		func() error { return run.Read(output, out) },
	); err != nil {
		return d.runError(err, b, run.Bytes())
	}
	return nil
}

// EncodeImage implements stage.Decoder.
func (d *Decoder) EncodeImage(ctx context.Context, req stage.EncodeImageRequest) (stage.Latent, error) {
	b, err := d.find(req.Model)
	if err != nil {
		return stage.Latent{}, err
	}
	if changed, _ := b.changed(); changed {
		d.look()
		if b, err = d.find(req.Model); err != nil {
			return stage.Latent{}, err
		}
	}
	if d.draining.Load() {
		return stage.Latent{}, d.drainingError()
	}
	pixels, height, width, err := imaging.Decode(req.Data)
	if err != nil {
		return stage.Latent{}, stage.Invalid(stage.InvalidField, "data", fmt.Sprintf("%d bytes", len(req.Data)), err.Error())
	}
	factor := b.component.SpatialFactor
	if height%factor != 0 || width%factor != 0 {
		return stage.Latent{}, stage.Invalid(stage.SizeUnsupported, "data", fmt.Sprintf("%dx%d", width, height), fmt.Sprintf("an image whose sides are multiples of %d", factor))
	}
	dir, err := d.dir(b.path)
	if err != nil {
		return stage.Latent{}, d.loadError(err, b)
	}
	net, err := dir.ImageEncoder()
	if err != nil {
		return stage.Latent{}, d.loadError(err, b)
	}
	defer net.Close() //nolint:errcheck // it was only read
	plan, _ := d.loadPlan(b, net.Manifest(), 0)
	weights, err := d.Device.Load(ctx, net.Manifest(), plan, net.Source(), func(int64) {})
	if err != nil {
		return stage.Latent{}, d.loadError(err, b)
	}
	defer weights.Free()
	tape, err := net.Tape(1, height, width)
	if err != nil {
		return stage.Latent{}, d.fault(err)
	}
	h, w, channels := height/factor, width/factor, b.component.LatentChannels
	moments := make([]float32, 2*channels*h*w)
	if err := d.evaluate(ctx, d.budgeted(d.Device.Memory().UsedBytes), b, tape, weights, modeldir.InputImage, pixels, modeldir.OutputMoments, moments); err != nil {
		return stage.Latent{}, err
	}
	if changed, _ := b.changed(); changed {
		return stage.Latent{}, d.changedError(b)
	}
	if !finite(moments) {
		return stage.Latent{}, d.notFiniteError(b, "moments") // of weights that are gone behind this
	}
	z := net.Config.Sample(moments, nil)
	net.Config.Scale(z)
	out := make([]float32, len(z))
	nn.ToChannelsFirst(out, z, 1, channels, h*w)
	return stage.Latent{Tensor: tensor.FromF32(out, 1, channels, h, w)}, nil
}
