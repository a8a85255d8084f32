package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// taskHires is the task of drawing in two passes.
const taskHires = "hires"

// enlargeFlags are how a picture is made larger than it is drawn.
type enlargeFlags struct {
	upscale, upscaler    string
	hires, hiresUpscaler string
	hiresStrength        float64
	hiresSteps           int32
}

func (f *enlargeFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.upscale, "upscale", "", "how much larger the picture is made behind its decoding, such as 2x (default with --upscaler: what its network makes)")
	flags.StringVar(&f.upscaler, "upscaler", "", "upscaler of the folders of models that does so (default: none, Lanczos' filter)")
	flags.StringVar(&f.hires, "hires", "", "draw in two passes: the first picture is made so much larger, such as 2x, and drawn from")
	flags.StringVar(&f.hiresUpscaler, "hires-upscaler", "", "upscaler that enlarges the first picture (default: none, Lanczos' filter)")
	flags.Float64Var(&f.hiresStrength, "hires-strength", 0, "how much the second pass changes, above 0 and up to 1 (default 0.3)")
	flags.Int32Var(&f.hiresSteps, "hires-steps", 0, "inference steps of the second pass, of which it takes the share of its strength (default: those of --steps)")
}

// set writes what is given into a request.
func (f *enlargeFlags) set(cmd *cobra.Command, spec *triptychv1alpha1.GenerationSpec) error {
	given := cmd.Flags().Changed
	for _, flag := range []string{"hires-upscaler", "hires-strength", "hires-steps"} {
		if given(flag) && !given("hires") && spec.GetTask() != taskHires {
			return usageError{fmt.Errorf("--%s %v: expected --hires beside it", flag, cmd.Flags().Lookup(flag).Value)}
		}
	}
	option := func(name string, v *triptychv1alpha1.OptionValue) {
		if spec.Options == nil {
			spec.Options = map[string]*triptychv1alpha1.OptionValue{}
		}
		spec.Options[name] = v
	}
	for flag, of := range map[string]struct{ text, name string }{"upscale": {f.upscale, "upscale"}, "hires": {f.hires, "hires_scale"}} {
		if !given(flag) {
			continue
		}
		scale, err := parseScale(flag, of.text)
		if err != nil {
			return err
		}
		option(of.name, scale)
	}
	if given("hires") {
		spec.Task = taskHires
	}
	for flag, of := range map[string]struct{ text, name string }{"upscaler": {f.upscaler, "upscaler"}, "hires-upscaler": {f.hiresUpscaler, "hires_upscaler"}} {
		if given(flag) {
			option(of.name, &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Text{Text: of.text}})
		}
	}
	if given("hires-strength") {
		option("hires_strength", &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Float{Float: f.hiresStrength}})
	}
	if given("hires-steps") {
		option("hires_steps", &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Int{Int: int64(f.hiresSteps)}})
	}
	return nil
}
