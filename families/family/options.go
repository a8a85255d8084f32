package family

import (
	"fmt"

	"github.com/triptych-serving/triptych/stage"
)

// The options that families have in common.
const (
	Width    = "width"
	Height   = "height"
	Guidance = "guidance_scale"
)

// Sides are the specs of an image's width and height, in pixels, by default those that the model was trained for.
func Sides(width, height, multiple int) []stage.OptionSpec {
	const most = 4096
	side := func(name string, trained int) stage.OptionSpec {
		return stage.OptionSpec{
			Name: name, Type: stage.Int, Unit: "pixels", Min: 1, Max: most, Multiple: int64(multiple), Shape: true,
			Refused: stage.SizeUnsupported, Default: stage.IntOption(int64(trained)),
		}
	}
	return []stage.OptionSpec{side(Width, width), side(Height, height)}
}

// GuidanceOption is the spec of classifier-free guidance, which above 1 evaluates a negative prompt too.
func GuidanceOption() stage.OptionSpec {
	return stage.OptionSpec{Name: Guidance, Type: stage.Float, Max: 100, Shape: true, Default: stage.FloatOption(5)}
}

// Batch is how many prompts a request has.
func Batch(o stage.Options) int {
	if o[Guidance].Float > 1 {
		return 2
	}
	return 1
}

// Latents is the size of the latents of an image, a place of which is so many pixels wide.
func Latents(o stage.Options, factor int) (height, width int) {
	return int(o[Height].Int) / factor, int(o[Width].Int) / factor
}

// Truncated is the warning that so many tokens of a text have no effect.
func Truncated(option string, dropped, limit int) stage.Warning {
	return stage.Warning{
		Code: "PROMPT_TRUNCATED", Message: fmt.Sprintf("%s: %s beyond the model's limit of %d cut off", option, stage.Count(dropped, "token"), limit),
	}
}
