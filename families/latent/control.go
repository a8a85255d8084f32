package latent

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/model/unet"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// ControlNets (Zhang et al. 2023, arXiv 2302.05543) lead the U-Net by pictures, one each. A net is evaluated before the U-Net
// with the same inputs, and its residuals, scaled and summed, are handed over. The denoiser gets pictures as files: what
// is made of one is as wide as the U-Net's first convolution and belongs to the net's weights. References: diffusers'
// StableDiffusionControlNetPipeline and those beside it.

const (
	// OptionControlNets names ControlNets, "canny:0.8:0:0.6,depth": by how much residuals are scaled, and from and up to which
	// share of the steps they are added.
	OptionControlNets = "controlnets"
	// AdapterControlNet is the kind of adapter, see stage.Model.
	AdapterControlNet = "controlnet"
	// PartControlNet is the one part of it.
	PartControlNet = "controlnet"
)

// maxControls is how many ControlNets lead a picture at most.
const maxControls = 3

// control is a ControlNet of a request.
type control struct {
	member            int
	net               *modeldir.ControlNet
	image, mask       string // values
	scale, start, end float64
}

// numbered is the i-th input of a name: "control_image", "control_image_2".
func numbered(name string, i int) string {
	if i == 0 {
		return name
	}
	return name + "_" + strconv.Itoa(i+1)
}

// controlPorts are the pictures that ControlNets are given, and masks that are white where there is none.
func controlPorts() (out []stage.Port) {
	for i := range maxControls {
		for _, name := range []string{"control_image", "control_mask"} {
			out = append(out, stage.Port{Name: numbered(name, i), Media: "image/*", Optional: true})
		}
	}
	return out
}

// controlOption is the spec of ControlNets.
func controlOption() stage.OptionSpec {
	var inputs []string
	for i := range maxControls {
		inputs = append(inputs, numbered("control_image", i))
	}
	return stage.OptionSpec{Name: OptionControlNets, Type: stage.Text, Max: maxNames, Shape: true, Adapter: AdapterControlNet, Inputs: inputs, Default: stage.TextOption("")}
}

// maxNames bounds an option that names adapters, in bytes.
const maxNames = 2048

// controls are the ControlNets among the networks of a turn. InvalidField where one does not fit the model.
func (m *Model) controls(nets []family.Network, o stage.Options) (out []control, err error) {
	chosen := o.Chosen(OptionControlNets)
	if len(chosen) > maxControls {
		return nil, stage.Invalid(stage.InvalidField, OptionControlNets, o[OptionControlNets], fmt.Sprintf("at most %d", maxControls))
	}
	for member, n := range nets {
		net, ok := n.(*modeldir.ControlNet)
		if !ok {
			continue
		}
		i := slices.IndexFunc(chosen, func(c stage.Choice) bool { return c.Name == net.Name() })
		if i < 0 {
			return nil, stage.Invalid(stage.InvalidField, OptionControlNets, o[OptionControlNets], "one that names "+net.Name())
		}
		c := control{member: member, net: net, image: numbered("control_image", i), mask: numbered("control_mask", i), scale: 1, end: 1}
		if err := c.read(chosen[i]); err != nil {
			return nil, err
		}
		if why := m.controlMisfit(net); why != "" {
			return nil, stage.Invalid(stage.InvalidField, OptionControlNets, net.Name(), "a ControlNet for "+m.Dir.Name()+"; this one is for another model: "+why)
		}
		out = append(out, c)
	}
	return out, nil
}

// read takes what numbers say of scale, start and end.
func (c *control) read(choice stage.Choice) error {
	to := []*float64{&c.scale, &c.start, &c.end}
	if n := choice.Numbers; len(n) <= len(to) {
		for i, v := range n {
			*to[i] = v
		}
		if c.start >= 0 && c.start < c.end && c.end <= 1 {
			return nil
		}
	}
	return stage.Invalid(stage.InvalidField, OptionControlNets, choice, "NAME:SCALE:START:END with 0 <= START < END <= 1, shares of the steps")
}

func (m *Model) controlMisfit(net *modeldir.ControlNet) string {
	if why := net.Config.Fits(m.UNet); why != "" {
		return why
	}
	if got, want := net.Config.Factor(), m.VAE.Factor(); got != want {
		return fmt.Sprintf("a place of the latents is %d pixels wide, where the model's is %d", got, want)
	}
	if got, want := net.Config.Trunk.InChannels, m.VAE.LatentChannels; got != want {
		return fmt.Sprintf("it takes %d channels of latents, where the model has %d", got, want)
	}
	return ""
}

// hintRun makes the features of a picture, once.
func (c control) hintRun(o stage.Options) (family.Run, error) {
	tape, err := c.net.HintTape(int(o[family.Height].Int), int(o[family.Width].Int))
	return family.Run{Member: c.member, Tape: tape, Image: true}, err
}

// run is that beside the U-Net's.
func (m *Model) controlRun(c control, o stage.Options, tokens int) (family.Run, error) {
	h, w := m.latentSize(o)
	tape, err := c.net.Tape(m.UNet, family.Batch(o), h, w, tokens)
	return family.Run{Member: c.member, Tape: tape, Held: true}, err
}

// active reports whether a net leads step i of n.
func (c control) active(i, n int) bool {
	return float64(i)/float64(n) >= c.start && float64(i+1)/float64(n) <= c.end
}

// picture is what a net is led by, in 0 to 1, and -1 where there is nothing.
func (c control) picture(req stage.WorkRequest) ([]float32, error) {
	p, err := resized(req, c.image)
	if err != nil {
		return nil, err
	}
	pixels := p.Unit()
	if c.net.Config.BGR {
		for i := 0; i < len(pixels); i += 3 {
			pixels[i], pixels[i+2] = pixels[i+2], pixels[i]
		}
	}
	if !req.Values.Has(c.mask) {
		return pixels, nil
	}
	mask, err := resized(req, c.mask)
	if err != nil {
		return nil, err
	}
	for i := range len(pixels) / 3 {
		if mask.Grey(i%mask.Width, i/mask.Width) >= white {
			pixels[3*i], pixels[3*i+1], pixels[3*i+2] = -1, -1, -1
		}
	}
	return pixels, nil
}

// controlling is the ControlNets of a request beside its U-Net.
type controlling struct {
	s        family.Session
	controls []control
	runs     []family.Run
	running  []device.Run
	batch    int
	sizes    []unet.Size // of residuals, the middle's last
	names    []string
	one, sum []float32
	last     []float32 // [batch, h, w, C] latents
	idle     bool      // the U-Net was given zeros
}

// openControls makes what nets know of their pictures, and starts them; the caller closes it, also beside an error.
func (d *denoising) openControls(ctx context.Context, s family.Session, controls []control) (*controlling, error) {
	h, w := d.latentSize(d.req.Options)
	c := &controlling{s: s, controls: controls, batch: family.Batch(d.req.Options)}
	for _, p := range controlPorts() {
		taken := func(c control) bool { return c.image == p.Name || c.mask == p.Name }
		if d.req.Values.Has(p.Name) && !slices.ContainsFunc(controls, taken) {
			return c, stage.Invalid(stage.InvalidField, p.Name, "a picture", "one for each ControlNet that "+OptionControlNets+" names, in its order")
		}
	}
	if len(controls) == 0 {
		return c, nil
	}
	for i, size := range d.UNet.SkipSizes(h, w) {
		c.names, c.sizes = append(c.names, modeldir.InputControl(i)), append(c.sizes, size)
	}
	c.names, c.sizes = append(c.names, modeldir.InputMiddle), append(c.sizes, d.UNet.MiddleSize(h, w))
	most := 0
	for _, s := range c.sizes {
		most = max(most, c.elems(s))
	}
	c.one, c.sum, c.last = make([]float32, most), make([]float32, most), make([]float32, c.batch*len(d.noise))
	var hints [][]float32
	for _, k := range controls {
		hint, err := d.hint(ctx, s, k)
		if err != nil {
			return c, err
		}
		hints = append(hints, hint)
	}
	for i, k := range controls {
		r, err := d.controlRun(k, d.req.Options, d.tokens)
		if err != nil {
			return c, err
		}
		run, err := s.Start(r)
		if err != nil {
			return c, err
		}
		c.runs, c.running = append(c.runs, r), append(c.running, run)
		if err := run.Write(modeldir.InputHint, slices.Repeat(hints[i], c.batch)); err != nil {
			return c, s.Failed(r, run, err)
		}
	}
	return c, nil
}

// condition writes what the U-Net is conditioned on.
func (c *controlling) condition(inputs []Input) error {
	for k, run := range c.running {
		for _, in := range inputs {
			if err := run.Write(in.Name, in.Values); err != nil {
				return c.s.Failed(c.runs[k], run, err)
			}
		}
	}
	return nil
}

// hint are the features of a net's picture.
func (d *denoising) hint(ctx context.Context, s family.Session, k control) ([]float32, error) {
	if !d.req.Values.Has(k.image) {
		return nil, stage.Invalid(stage.InvalidField, k.image, "no picture", "one, which ControlNet "+k.net.Name()+" is led by")
	}
	picture, err := k.picture(d.req)
	if err != nil {
		return nil, err
	}
	r, err := k.hintRun(d.req.Options)
	if err != nil {
		return nil, err
	}
	h, w := d.latentSize(d.req.Options)
	hint := make([]float32, h*w*d.UNet.Channels[0])
	if err := family.Evaluate(ctx, s, r, modeldir.InputImage, picture, modeldir.OutputHint, hint); err != nil {
		return nil, err
	}
	if !family.Finite(hint) {
		return nil, s.NotFinite(k.member, "features of a picture")
	}
	return hint, nil
}

func (c *controlling) close() {
	for _, run := range c.running {
		run.Free()
	}
}

func (c *controlling) elems(s unet.Size) int { return c.batch * s.Height * s.Width * s.Channels }

// lead evaluates the nets that are active in step i of n, for latents [C, h, w] and the U-Net's time, and writes their
// residuals to its run. Where none is active they are zero.
func (c *controlling) lead(ctx context.Context, to device.Run, i, n int, latents, time []float32) error {
	if len(c.controls) == 0 {
		return nil
	}
	channels := c.controls[0].net.Config.Trunk.InChannels
	for b := range c.batch {
		nn.ToChannelsLast(c.last[b*len(latents):][:len(latents)], latents, 1, channels, len(latents)/channels)
	}
	var active []int
	for k, control := range c.controls {
		if !control.active(i, n) {
			continue
		}
		active = append(active, k)
		run := c.running[k]
		if err := family.First(
			func() error { return run.Write(modeldir.InputLatents, c.last) },
			func() error { return run.Write(modeldir.InputTime, time) },
			func() error { return run.Execute(ctx) },
		); err != nil {
			return c.s.Failed(c.runs[k], run, err)
		}
	}
	if len(active) == 0 && c.idle {
		return nil
	}
	c.idle = len(active) == 0
	for at, name := range c.names {
		if err := c.hand(to, name, c.sizes[at], active); err != nil {
			return err
		}
	}
	return nil
}

// hand writes the sum of one residual to the U-Net's run, net by net, so that no more than two of them are held beside the device.
func (c *controlling) hand(to device.Run, name string, size unet.Size, active []int) error {
	one, sum := c.one[:c.elems(size)], c.sum[:c.elems(size)]
	clear(sum)
	for _, k := range active {
		control := c.controls[k]
		if err := c.running[k].Read(name, one); err != nil {
			return c.s.Failed(c.runs[k], c.running[k], err)
		}
		if !family.Finite(one) {
			return c.s.NotFinite(control.member, "residuals")
		}
		if control.net.Config.Pooled {
			pool(one, c.batch, size.Channels)
		}
		for i, v := range one {
			sum[i] += float32(control.scale) * v
		}
	}
	return to.Write(name, sum)
}

// pool replaces residuals [batch, places, channels] by their means over the places. The negative half of a guided batch gets
// none.
func pool(v []float32, batch, channels int) {
	image := len(v) / batch
	for b := range batch {
		part, mean := v[b*image:][:image], make([]float64, channels)
		for i, x := range part {
			mean[i%channels] += float64(x)
		}
		for i := range part {
			part[i] = float32(mean[i%channels] / float64(image/channels))
		}
		if b < batch-1 {
			clear(part)
		}
	}
}
