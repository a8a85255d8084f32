package stagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// Fake is a stage of any kind: it counts memory, follows a script, and takes the turns of Recipe in simple arithmetic.
type Fake struct{ *residency }

var _ stage.Stage = (*Fake)(nil)

// New makes a fake with nothing resident; script may be nil.
func New(kind stage.Kind, script *Script) *Fake { return &Fake{newResidency(kind, script)} }

// turn is a turn of the first component's model, and its options with their defaults; has tells of its values, nil in plans.
// InvalidField, ModelNotFound.
func (r *residency) turn(name string, components []string, options stage.Options, has func(string) bool) (stage.Turn, stage.Options, error) {
	if len(components) == 0 {
		return stage.Turn{}, nil, stage.Invalid(stage.InvalidField, "components", "", "at least one")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, component := range components {
		if _, err := r.find(component); err != nil {
			return stage.Turn{}, nil, err
		}
	}
	for _, c := range options.Chosen(Styles) {
		if adapters[c.Name] == nil {
			return stage.Turn{}, nil, stage.Invalid(stage.InvalidField, Styles, c.Name, "one of "+strings.Join(slices.Sorted(maps.Keys(adapters)), ", "))
		}
	}
	recipe := Recipe(stage.ModelOf(components[0])).Choose(options, r.part)
	t, ok := recipe.Turn(name)
	if !ok || t.Kind != r.kind {
		return t, nil, stage.Invalid(stage.InvalidField, "turn", name, fmt.Sprintf("a turn of the %v", r.kind))
	}
	if !t.WorksWith(components, has, func(c, member string) bool { return c == member }) {
		return t, nil, stage.Invalid(stage.InvalidField, "components", strings.Join(components, ", "), strings.Join(t.Components(), ", "))
	}
	options, err := recipe.Complete(t.Options, options)
	return t, options, err
}

// scratch is what a turn takes for options that have been resolved.
func (r *residency) scratch(t stage.Turn, options stage.Options) int64 {
	cells := options["width"].Int * options["height"].Int / factor / factor
	bytes := 4 * channels * cells
	switch Op(t.Name) {
	case OpDenoise:
		bytes += 4 * contextDim * max(0, options["tokens"].Int-maxTokens)
	case OpEncode:
		bytes = 4 * maxTokens * contextDim
	case OpDecode, OpEncodeImage:
		bytes = 4 * factor * factor * cells
	}
	if options["guidance_scale"].Float > 1 {
		bytes *= 2
	}
	return bytes * int64(r.script.get().threads)
}

// Plan tells the weights of the components within a limit for all together, and the scratch of the turn.
func (f *Fake) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	if err := ctx.Err(); err != nil {
		return stage.Footprint{}, err
	}
	t, options, err := f.turn(req.Turn, req.Components, req.Options, nil)
	if err != nil {
		return stage.Footprint{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	footprint := stage.Footprint{ScratchBytes: f.scratch(t, options)}
	for _, name := range req.Components {
		c, err := f.usable(name)
		if err != nil {
			return stage.Footprint{}, err
		}
		footprint.Weights = append(footprint.Weights, stage.Weights{Component: name, Bytes: c.WeightsBytes, WholeBytes: c.WeightsBytes})
	}
	// The first ones give way first.
	for i := range footprint.Weights {
		if over := footprint.WeightsBytes() - req.LimitBytes; req.LimitBytes > 0 && over > 0 {
			footprint.Weights[i].Bytes = within(footprint.Weights[i].WholeBytes, max(1, footprint.Weights[i].WholeBytes-over))
		}
	}
	return footprint, nil
}

// call is a turn that is being taken.
type call struct {
	stage.WorkRequest
	observer      stage.Observer
	script        *Script
	width, height int // of latents
}

// Work takes a turn.
func (f *Fake) Work(ctx context.Context, req stage.WorkRequest, observer stage.Observer) (stage.Result, error) {
	t, options, err := f.turn(req.Turn, req.Components, req.Options, req.Values.Has)
	if err == nil {
		err = stage.Check(t.Takes, req.Values)
	}
	if err != nil {
		return stage.Result{}, err
	}
	req.Options = options
	c := &call{req, observer, f.script, int(options["width"].Int / factor), int(options["height"].Int / factor)}
	end, err := f.begin(ctx, req.Components, f.scratch(t, options))
	if err != nil {
		return stage.Result{}, err
	}
	defer end()
	return map[Op]func(context.Context) (stage.Result, error){
		OpEncode: c.encode, OpEncodeImage: c.encodeImage, OpDenoise: c.denoise, OpDecode: c.decode,
	}[Op(t.Name)](ctx)
}

// encode hashes words with their positions: a word is a token.
func (c *call) encode(ctx context.Context) (r stage.Result, err error) {
	names := []string{"prompt"}
	if c.Options["guidance_scale"].Float > 1 {
		names = []string{"negative_prompt", "prompt"}
	}
	var states []float32
	tokens := maxTokens
	if stage.ModelOf(c.Components[0]) == Film { // takes all of a prompt
		for _, name := range names {
			tokens = max(tokens, len(strings.Fields(c.Options[name].Text)))
		}
	}
	for i, name := range names {
		if err := c.script.at(ctx, OpEncode, i+1); err != nil {
			return r, err
		}
		words := strings.Fields(c.Options[name].Text)
		if dropped := len(words) - tokens; dropped > 0 {
			r.Warnings = append(r.Warnings, stage.Warning{
				Code: "PROMPT_TRUNCATED", Message: fmt.Sprintf("%s: %s beyond the model's limit of %d cut off", name, stage.Count(dropped, "token"), maxTokens),
			})
		}
		for t := range tokens {
			word := "<pad>"
			if t < len(words) {
				word = words[t]
			}
			h := fnv.New64a()
			fmt.Fprintf(h, "%s %d %s", stage.ModelOf(c.Components[0]), t, word)
			for d := range contextDim {
				states = append(states, noise(h.Sum64(), 0, d)+c.style(textStyle))
			}
		}
	}
	r.Values = stage.Values{{Name: "hidden_states", Tensor: tensor.FromF32(states, len(names), tokens, contextDim)}}
	return r, nil
}

// style is what the adapters with a part add.
func (c *call) style(part string) (sum float32) {
	for _, s := range c.Options.Chosen(Styles) {
		weight := 1.0
		if len(s.Numbers) > 0 {
			weight = s.Numbers[0]
		}
		if slices.Contains(c.Components, s.Name+"/"+part) {
			sum += float32(weight) / float32(len(s.Name))
		}
	}
	return sum
}

// encodeImage takes the first pixel of every block.
func (c *call) encodeImage(ctx context.Context) (r stage.Result, err error) {
	v, _ := c.Values.Get("init_image")
	img, _, err := image.Decode(bytes.NewReader(v.File.Data))
	if err != nil {
		return r, stage.Invalid(stage.InvalidField, v.Name, fmt.Sprintf("%d bytes", len(v.File.Data)), "an image file")
	}
	if size := img.Bounds().Size(); size != image.Pt(c.width*factor, c.height*factor) {
		return r, stage.Invalid(stage.SizeUnsupported, v.Name, size, fmt.Sprintf("%d x %d pixels", c.width*factor, c.height*factor))
	}
	if err := c.script.at(ctx, OpEncodeImage, 1); err != nil {
		return r, err
	}
	var values []float32
	for k := range channels {
		for i := range c.width * c.height {
			r, g, b, a := img.At(i%c.width*factor, i/c.width*factor).RGBA()
			values = append(values, float32([...]uint32{r, g, b, a}[k])/65535*2-1)
		}
	}
	r.Values = stage.Values{{Name: "moments", Tensor: tensor.FromF32(values, 1, channels, c.height, c.width)}}
	return r, nil
}

// decode makes blocks of pixels of the cells of latents.
func (c *call) decode(ctx context.Context) (r stage.Result, err error) {
	v, _ := c.Values.Get("latents")
	values, err := v.Tensor.Float32s()
	if s := v.Tensor.Shape; err != nil || s[2] != c.height || s[3] != c.width {
		return r, stage.Errorf(stage.TensorInvalid, "latents: expected [1, %d, %d, %d], got %v", channels, c.height, c.width, s)
	}
	img := image.NewRGBA(image.Rect(0, 0, c.width*factor, c.height*factor))
	for y := range c.height {
		if err := c.script.at(ctx, OpDecode, y+1); err != nil {
			return r, err
		}
		for x := range c.width {
			var p [3]uint8
			for k := range p {
				p[k] = uint8(127.5 + 127.5*math.Tanh(float64(values[(k*c.height+y)*c.width+x])))
			}
			for i := range factor * factor {
				img.SetRGBA(x*factor+i%factor, y*factor+i/factor, color.RGBA{p[0], p[1], p[2], 255})
			}
		}
	}
	data, err := c.file(img)
	r.Values = stage.Values{{Name: "image", File: &stage.File{
		Media: "image/" + c.Options["format"].Text, WidthPx: img.Rect.Dx(), HeightPx: img.Rect.Dy(), Data: data,
	}}}
	return r, err
}

// file is an image in the format of the options, with the parameters in a tEXt chunk behind the header of a PNG file.
func (c *call) file(img image.Image) ([]byte, error) {
	var b bytes.Buffer
	if c.Options["format"].Text == stage.JPEG {
		err := jpeg.Encode(&b, img, &jpeg.Options{Quality: int(c.Options["quality"].Int)})
		return b.Bytes(), err
	}
	if err := png.Encode(&b, img); err != nil {
		return nil, err
	}
	v, ok := c.Values.Get("parameters")
	if !ok {
		return b.Bytes(), nil
	}
	const header = 8 + 4 + 4 + 13 + 4
	body := append([]byte("tEXtparameters\x00"), v.File.Data...)
	out := binary.BigEndian.AppendUint32(bytes.Clone(b.Bytes()[:header]), uint32(len(body)-4))
	out = binary.BigEndian.AppendUint32(append(out, body...), crc32.ChecksumIEEE(body))
	return append(out, b.Bytes()[header:]...), nil
}
