package stagetest

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// Shapes of the fakes.
const (
	maxTokens  = 8
	contextDim = 6
	channels   = 4
	multiple   = 2 // of the sides of latents
	factor     = 4 // pixels of a cell of latents, in each direction
	maxSide    = 64
)

// The samplers of the fake: heun makes two evaluations a step, but one in the last.
const (
	euler = "euler"
	heun  = "heun"
)

// parts are the components of every model, by the stage that has them; the first one is Component's.
var parts = map[stage.Kind][]string{
	stage.KindEncoder:  {"text_encoder"},
	stage.KindDenoiser: {"unet", "controlnet"},
	stage.KindDecoder:  {"vae.decoder", "vae.encoder"},
}

// AdapterKind is the kind of adapters that every model takes, by its option Styles.
const (
	AdapterKind = "style"
	Styles      = "styles"
)

// adapters are the parts of the models beside those.
var adapters = map[string]map[stage.Kind]string{
	Style:  {stage.KindEncoder: textStyle, stage.KindDenoiser: unetStyle},
	Detail: {stage.KindDenoiser: unetStyle},
}

// Adapter is the kind of adapter that a component is of, empty of other models.
func Adapter(component string) string {
	if adapters[stage.ModelOf(component)] == nil {
		return ""
	}
	return AdapterKind
}

// The parts of adapters.
const (
	textStyle = "text_style"
	unetStyle = "unet_style"
)

// Component is the first component of a model in a stage.
func Component(kind stage.Kind, model string) string { return model + "/" + parts[kind][0] }

// Recipe is that of a model: encode, denoise and decode, with encode_image before denoise where there is an init_image, and a
// controlnet beside the U-Net where there is a control. Adapters that Styles names take part in encode and denoise.
func Recipe(model string) stage.Recipe {
	member := func(part, with string) stage.Member { return stage.Member{Component: model + "/" + part, With: with} }
	latents := func(name string) stage.Port {
		return stage.Port{Name: name, Shape: []string{"1", "4", "latent_height", "latent_width"}}
	}
	optional := func(p stage.Port) stage.Port {
		p.Optional = true
		return p
	}
	side := func(name string) stage.OptionSpec {
		return stage.OptionSpec{
			Name: name, Type: stage.Int, Default: stage.IntOption(8 * factor), Max: maxSide * factor, Multiple: multiple * factor,
			Shape: true, Unit: "pixels", Refused: stage.SizeUnsupported,
		}
	}
	photo, control := stage.Port{Name: "init_image", Media: "image/*"}, stage.Port{Name: "control", Media: "image/*"}
	given := latents("latents")
	slot := func(part string) stage.Member { return stage.Member{Component: part, Option: Styles} }
	options := []stage.OptionSpec{
		{Name: "prompt", Type: stage.Text, Default: stage.TextOption(""), Max: 8192, Tokens: maxTokens},
		{Name: "negative_prompt", Type: stage.Text, Default: stage.TextOption(""), Max: 8192, Tokens: maxTokens},
		side("width"), side("height"),
		{Name: "steps", Type: stage.Int, Default: stage.IntOption(20), Min: 1, Max: 1000},
		{Name: "guidance_scale", Type: stage.Float, Default: stage.FloatOption(5), Max: 100, Shape: true},
		{Name: "sampler", Type: stage.Text, Default: stage.TextOption(euler), Choices: []string{euler, heun}, Refused: stage.SamplerUnsupported},
		{Name: "strength", Type: stage.Float, Default: stage.FloatOption(0.8), Max: 1},
		{Name: "format", Type: stage.Text, Default: stage.TextOption("png"), Choices: []string{"png", "jpeg"}},
		{Name: "quality", Type: stage.Int, Default: stage.IntOption(90), Min: 1, Max: 100},
		{Name: Styles, Type: stage.Text, Max: 1024, Shape: true, Adapter: AdapterKind},
	}
	denoise := []string{"width", "height", "steps", "guidance_scale", "sampler", "strength", Styles}
	states := stage.Port{Name: "hidden_states", Shape: []string{"batch", fmt.Sprint(maxTokens), fmt.Sprint(contextDim)}}
	if model == Film {
		given.Units = "frames"
		states.Shape[1] = "tokens"
		options = append(options,
			stage.OptionSpec{Name: "frames", Type: stage.Int, Default: stage.IntOption(2), Min: 1, Max: 4},
			stage.OptionSpec{Name: "tokens", Type: stage.Int, Default: stage.IntOption(maxTokens), Min: maxTokens, Max: 4096, Shape: true},
		)
		denoise = append(denoise, "frames", "tokens")
	}
	taken := states
	taken.Shape = slices.Clone(states.Shape) // tests change the one and not the other
	return stage.Recipe{
		Family: "fake", Task: "generate", Inputs: []stage.Port{optional(photo), optional(control)}, Options: options,
		Turns: []stage.Turn{
			{
				Name: string(OpEncode), Kind: stage.KindEncoder, Members: []stage.Member{member("text_encoder", ""), slot(textStyle)},
				Gives:   []stage.Port{states},
				Options: []string{"prompt", "negative_prompt", "guidance_scale", Styles},
			},
			{
				Name: string(OpEncodeImage), Kind: stage.KindDecoder, Members: []stage.Member{member("vae.encoder", "")},
				Takes: []stage.Port{photo}, Gives: []stage.Port{latents("moments")}, Options: []string{"width", "height"}, Optional: true,
			},
			{
				Name: string(OpDenoise), Kind: stage.KindDenoiser, Members: []stage.Member{member("unet", ""), member("controlnet", control.Name), slot(unetStyle)},
				Takes: []stage.Port{taken, optional(latents("moments")), optional(control)},
				Gives: []stage.Port{given}, Options: denoise, EachImage: true,
			},
			{
				Name: string(OpDecode), Kind: stage.KindDecoder, Members: []stage.Member{member("vae.decoder", "")},
				Takes: []stage.Port{latents("latents"), {Name: "parameters", Media: "text/plain", Optional: true}},
				Gives: []stage.Port{{Name: "image", Media: "image/*"}}, Options: []string{"width", "height", "format", "quality"}, EachImage: true,
			},
		},
	}
}

// Request is a turn of Model that is valid for the fake: encode, denoise or decode, for an image of 24 x 16 pixels, with guidance.
func Request(kind stage.Kind) stage.WorkRequest {
	req := stage.WorkRequest{Components: []string{Component(kind, Model)}, Seed: 42, Options: stage.Options{}}
	switch kind {
	case stage.KindEncoder:
		req.Turn = string(OpEncode)
		req.Options["prompt"], req.Options["negative_prompt"] = stage.TextOption("a small red boat"), stage.TextOption("a house by the sea")
		req.Options["guidance_scale"] = stage.FloatOption(4)
		return req
	case stage.KindDenoiser:
		req.Turn = string(OpDenoise)
		req.Options["steps"], req.Options["guidance_scale"] = stage.IntOption(5), stage.FloatOption(4)
		req.Values = stage.Values{{Name: "hidden_states", Tensor: numbers(2, maxTokens, contextDim)}}
	case stage.KindDecoder:
		req.Turn = string(OpDecode)
		req.Values = stage.Values{{Name: "latents", Tensor: numbers(1, channels, 4, 6)}}
	}
	req.Options["width"], req.Options["height"] = stage.IntOption(6*factor), stage.IntOption(4*factor)
	return req
}

// ImageRequest is encode_image, valid for the fake decoder.
func ImageRequest() stage.WorkRequest {
	return stage.WorkRequest{
		Turn: string(OpEncodeImage), Components: []string{Model + "/vae.encoder"},
		Options: stage.Options{"width": stage.IntOption(6 * factor), "height": stage.IntOption(4 * factor)},
		Values:  stage.Values{{Name: "init_image", File: Photo(6*factor, 4*factor)}},
	}
}

// ControlRequest is the denoise of Request with a second component.
func ControlRequest() stage.WorkRequest {
	req := Request(stage.KindDenoiser)
	req.Components = append(req.Components, Model+"/controlnet")
	req.Values = append(req.Values, stage.Value{Name: "control", File: Photo(6*factor, 4*factor)})
	return req
}

// StyledRequest is a request for encode or denoise with adapters: Style in both, and Detail behind it in denoise.
func StyledRequest(kind stage.Kind) stage.WorkRequest {
	req := Request(kind)
	req.Options[Styles] = stage.TextOption(Style + ":0.5," + Detail)
	for _, name := range []string{Style, Detail} {
		if part, ok := adapters[name][kind]; ok {
			req.Components = append(req.Components, name+"/"+part)
		}
	}
	return req
}

// Of is a request for another model.
func Of(model string, req stage.WorkRequest) stage.WorkRequest {
	var components []string
	for _, name := range req.Components {
		_, part, _ := strings.Cut(name, "/")
		components = append(components, model+"/"+part)
	}
	req.Components = components
	return req
}

// Photo is a PNG file.
func Photo(width, height int) *stage.File {
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		img.SetRGBA(i%width, i/width, color.RGBA{uint8(3 * i), uint8(5 * i), uint8(7 * i), 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil { // a buffer takes everything
		panic(err)
	}
	return &stage.File{Media: "image/" + stage.PNG, WidthPx: width, HeightPx: height, Data: b.Bytes()}
}

func numbers(shape ...int) tensor.Tensor {
	n, _ := tensor.Shape(shape).Elems()
	values := make([]float32, n)
	for i := range values {
		values[i] = noise(1, 0, i)
	}
	return tensor.FromF32(values, shape...)
}

// noise is a number from -1 to 1 that depends on nothing but seed, draw and position (splitmix64).
func noise(seed uint64, draw, position int) float32 {
	x := seed ^ uint64(draw)<<40 ^ uint64(position)
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return float32(int32(x>>32)) / (1 << 31)
}
