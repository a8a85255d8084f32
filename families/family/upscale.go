package family

import (
	"context"
	"fmt"
	"image"
	"math"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/imaging"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/upscale"
	"github.com/triptych-serving/triptych/stage"
)

// Enlarging images by the network of an upscaler, for turns of any family.
const (
	Upscaler      = "upscaler"        // the part, and the option that names models with it
	Scale         = "upscale"         // option
	UpscaleTile   = "upscale_tile"    // option
	UpscaleBlend  = "upscale_overlap" // option
	UpscalePad    = "upscale_padding" // option
	maxScale      = 16
	minTile       = 16
	maxPixels     = 64 << 20 // of an image that is enlarged
	maxTileBorder = 256
)

// UpscaleOptions are the specs of how an image is enlarged. None has a default, so that nothing is told of images that are not.
func UpscaleOptions() []stage.OptionSpec {
	return []stage.OptionSpec{
		{Name: Scale, Type: stage.Float, Min: 1. / maxScale, Max: maxScale, Shape: true},
		{Name: UpscaleTile, Type: stage.Int, Max: imaging.MaxSide, Shape: true},
		{Name: UpscaleBlend, Type: stage.Int, Max: maxTileBorder, Shape: true},
		{Name: UpscalePad, Type: stage.Int, Max: maxTileBorder, Shape: true},
	}
}

// UpscaleNames are the names of those.
func UpscaleNames() []string { return []string{Scale, UpscaleTile, UpscaleBlend, UpscalePad} }

// UpscalerSlot is the member of a turn that an option names.
func UpscalerSlot(option string) stage.Member {
	return stage.Member{Component: Upscaler, Option: option}
}

// UpscalerOption is the spec of an option that names an upscaler.
func UpscalerOption(name string) stage.OptionSpec {
	return stage.OptionSpec{Name: name, Type: stage.Text, Max: 256, Shape: true, Adapter: Upscaler}
}

// Enlarged is the size that an image of h x w pixels is enlarged to, by the option or else by the scale of the network. The error is
// a stage.Error about an image that would be too large.
func Enlarged(o stage.Options, scale, h, w int) (height, width int, err error) {
	factor := float64(scale)
	if v, said := o[Scale]; said {
		factor = v.Float
	}
	side := func(n int) int { return max(1, int(math.Round(float64(n)*factor))) }
	height, width = side(h), side(w)
	if pixels := max(height*width, h*scale*w*scale); pixels > maxPixels {
		return 0, 0, stage.Invalid(stage.SizeUnsupported, Scale, fmt.Sprintf("%dx%d, of which the network makes %dx%d", w, h, w*scale, h*scale),
			fmt.Sprintf("images of at most %d megapixels, before and behind the change to %dx%d", maxPixels>>20, width, height))
	}
	return height, width, nil
}

// OneUpscaler refuses an option that names several models.
func OneUpscaler(option string, o stage.Options) error {
	if len(o.Chosen(option)) > 1 {
		return stage.Invalid(stage.InvalidField, option, o[option], "one upscaler")
	}
	return nil
}

// tiling is that of a request, or the usual one.
func tiling(c upscale.Config, o stage.Options, h, w int) (upscale.Tiling, error) {
	side := int(o[UpscaleTile].Int)
	t := c.Usual(h, w)
	switch {
	case side >= minTile:
		t = c.Tiles(side)
	case side > 0:
		return t, stage.Invalid(stage.InvalidField, UpscaleTile, side, fmt.Sprintf("0 for the largest tiles that memory allows, or %d to %d pixels", minTile, imaging.MaxSide))
	}
	if v, said := o[UpscaleBlend]; said && t.Tile > 0 {
		t.Overlap = int(v.Int)
	}
	if t.Overlap > t.Tile/2 {
		return t, stage.Invalid(stage.InvalidField, UpscaleBlend, t.Overlap, fmt.Sprintf("at most half of a tile of %d pixels", t.Tile))
	}
	if v, said := o[UpscalePad]; said && t.Tile > 0 {
		t.Pad = int(v.Int)
	}
	return t, nil
}

// UpscaleRuns are those of a member of a turn that enlarges an image of h x w pixels. The error may be a stage.Error.
func UpscaleRuns(net Network, member int, o stage.Options, h, w int) (runs []Run, err error) {
	u := net.(*modeldir.Upscaler)
	t, err := tiling(u.Config, o, h, w)
	if err == nil {
		_, _, err = Enlarged(o, u.Config.Scale(), h, w)
	}
	if err != nil {
		return nil, err
	}
	for _, size := range t.Sizes(h, w) {
		tape, err := u.Tape(size.H, size.W)
		if err != nil {
			return nil, err
		}
		runs = append(runs, Run{Member: member, Tape: tape, Image: true})
	}
	return runs, nil
}

// Upscale enlarges an image by the network of a member, and then changes it by Lanczos' filter to the size that Enlarged tells. tell,
// which may be nil, hears of tiles. The errors are those of a Turn's Work.
func Upscale(ctx context.Context, s Session, member int, o stage.Options, p imaging.Pixels, tell func(done, all int)) (imaging.Pixels, error) {
	w := upscaling{Session: s, member: member, net: s.Network(member).(*modeldir.Upscaler), picture: p}
	t, err := tiling(w.net.Config, o, p.Height, p.Width)
	if err != nil {
		return p, err
	}
	scale := w.net.Config.Scale()
	height, width, err := Enlarged(o, scale, p.Height, p.Width)
	if err != nil {
		return p, err
	}
	defer w.free()
	out := image.NewRGBA(image.Rect(0, 0, p.Width*scale, p.Height*scale))
	row, done, all := 0, 0, t.Tiles(p.Height, p.Width)
	if err := t.Join(p.Height, p.Width, scale, func(at upscale.Window) ([]float32, error) {
		pixels, err := w.tile(ctx, at)
		if done++; tell != nil && err == nil {
			tell(done, all)
		}
		return pixels, err
	}, func(rows []float32) { row = imaging.SetRows(out, row, rows) }); err != nil {
		return p, err
	}
	return imaging.FromImage(out).Resize(width, height), nil
}

// upscaling is one image at work.
type upscaling struct {
	Session
	member  int
	net     *modeldir.Upscaler
	picture imaging.Pixels
	size    upscale.Window // of the run
	r       Run
	run     device.Run // of the last tile; nil before the first
}

func (u *upscaling) free() {
	if u.run != nil {
		u.run.Free()
	}
	u.run = nil
}

// tile enlarges a window of the picture.
func (u *upscaling) tile(ctx context.Context, at upscale.Window) ([]float32, error) {
	if size := (upscale.Window{H: at.H, W: at.W}); u.run == nil || size != u.size {
		u.free()
		tape, err := u.net.Tape(at.H, at.W)
		if err != nil {
			return nil, err
		}
		u.size, u.r = size, Run{Member: u.member, Tape: tape, Image: true}
		if u.run, err = u.Start(u.r); err != nil {
			u.run = nil
			return nil, err
		}
	}
	pixels := u.picture.Window(at.Y, at.X, at.H, at.W)
	elems, _ := u.r.Tape.Outputs()[0].Array.Shape.Elems()
	out := make([]float32, elems)
	if err := First(
		func() error { return u.run.Write(modeldir.InputImage, u.net.Config.Input(pixels, at.H, at.W)) },
		func() error { return u.run.Execute(ctx) },
		func() error { return u.run.Read(modeldir.OutputImage, out) },
	); err != nil {
		return nil, u.Failed(u.r, u.run, err)
	}
	if !Finite(out) {
		return nil, u.NotFinite(u.member, "pixels")
	}
	return u.net.Config.Pixels(out, pixels, at.H, at.W), nil
}
