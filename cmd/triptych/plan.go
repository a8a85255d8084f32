package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/devices"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	"github.com/triptych-serving/triptych/planner"
	"github.com/triptych-serving/triptych/stage"
)

// planFlags are what `triptych plan` is told.
type planFlags struct {
	stack    stackFlags
	req      planner.EstimateRequest
	adapters adapterFlags
	options  []string // NAME=VALUE
	scale    float32
	load     byteRate
	asJSON   bool
}

func planCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan MODEL...",
		Short: "Tell the memory an image takes in each stage, and what a budget costs, without loading a model",
		Long: `Tell the memory an image takes in each stage, and what a budget costs, without loading a model.

A model need not be there: a directory in the layout of diffusers is planned from model_index.json and the
config.json of every network, with the headers or indexes of weight files where there are any. Types are those of the
headers, or else torch_dtype's, or else float16; --precision exchanges them as usual. Models of Stable Diffusion
1 and 2, XL and FLUX.1 are known; of those that Triptych cannot run yet the plan says so.

Adapters are planned with the model, of their headers too: those of --lora, --controlnet and --ip-adapter, and what options
name.

With several models the plan tells as well what they take together, asked for in turn. Parts that are equal, such as
the text encoder and autoencoder of a fine-tune, count once; where weights are there and all else agrees, they are read to
find out.`,
		Example: "  triptych plan starter --width 1024 --height 1024 --memory-budget 256MiB\n" +
			"  triptych plan ./sdxl ./flux --memory-budget 16GiB --precision int8 --load-bandwidth 500MB/s",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > simulate.MaxModels {
				return usageError{fmt.Errorf("expected 1 to %d models, each its name or its directory, got %d arguments", simulate.MaxModels, len(args))}
			}
			return nil
		},
		ValidArgsFunction: completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			for flag, side := range map[string]int{"width": f.req.WidthPx, "height": f.req.HeightPx} {
				if cmd.Flags().Changed(flag) && side == 0 {
					return stage.Invalid(stage.SizeUnsupported, flag, side, "a positive number of pixels")
				}
			}
			if scale := float64(f.scale); math.IsNaN(scale) || math.IsInf(scale, 0) {
				return stage.Invalid(stage.InvalidField, "guidance-scale", scale, "a number")
			}
			f.req.Options = map[string]string{}
			for _, option := range append(f.options, f.adapters.options()...) {
				name, value, ok := strings.Cut(option, "=")
				if !ok || name == "" {
					return usageError{fmt.Errorf("--option %q: expected NAME=VALUE", option)}
				}
				f.req.Options[name] = value
			}
			p, err := f.plan(cmd.Context(), args, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if f.asJSON {
				err = printJSON(cmd.OutOrStdout(), p)
			} else {
				err = printPlan(cmd.OutOrStdout(), p)
			}
			for _, m := range p.Models {
				err = cmp.Or(err, m.Refused)
			}
			return err
		},
	}
	f.stack.add(cmd)
	warmFlag(cmd.Flags(), &f.stack.warm)
	flags := cmd.Flags()
	flags.IntVar(&f.req.WidthPx, "width", 0, "width in pixels (default: the model's own)")
	flags.IntVar(&f.req.HeightPx, "height", 0, "height in pixels (default: the model's own)")
	flags.Float32Var(&f.scale, "guidance-scale", 5, "up to 1 is unguided, which takes less")
	flags.StringSliceVar(&f.req.Inputs, "inputs", nil, "files that the request has, such as init_image,mask: the model's turns for them are planned as well")
	f.adapters.addNames(flags)
	flags.StringArrayVar(&f.options, "option", nil, "option of the model, NAME=VALUE, that has no flag here, such as upscaler=NAME; may be repeated")
	flags.Var(&f.load, "load-bandwidth", "stored weights loaded in a second, from storage to ready, such as 500MB/s (default: measured on the model's files, if they are there)")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON, with exact bytes")
	return cmd
}

// byteRate is a flag like 500MB/s; 0 is not given.
type byteRate int64

func (b *byteRate) String() string {
	if *b == 0 {
		return ""
	}
	size := byteSize(*b)
	return size.String() + "/s"
}

func (b *byteRate) Set(text string) error {
	var size byteSize
	if err := size.Set(strings.TrimSuffix(text, "/s")); err != nil || size == 0 {
		return fmt.Errorf("%q is not a rate, expected a positive number with a unit such as 500MB/s", text)
	}
	*b = byteRate(size)
	return nil
}

func (*byteRate) Type() string { return "RATE" }

// plan plans every model. What takes a while is told to w.
func (f *planFlags) plan(ctx context.Context, args []string, w io.Writer) (p planner.Plan, err error) {
	var names, paths []string
	named := map[string]bool{}
	for _, arg := range args {
		path, name, ok, err := modelDirectory(arg)
		if err != nil {
			return p, err
		}
		if named[name] {
			return p, usageError{fmt.Errorf("model %q is named twice", name)}
		}
		named[name] = true
		names = append(names, name)
		if ok {
			paths = append(paths, path)
		}
	}
	if len(paths) == len(args) {
		f.stack.models = paths
	} else {
		f.stack.models = append(paths, f.stack.models...)
	}
	runtime := f.stack.runtime(logFlags{}, f.stack.models...)
	o, hardware, err := runtime.options()
	if err != nil {
		return p, err
	}
	if o.Device, err = devices.Plan(runtime.device, hardware); err != nil {
		return p, usageError{err}
	}
	if err := f.stack.weights.check(o.Device); err != nil {
		return p, err
	}
	f.req.Guided = f.scale > 1
	if p, err = planner.New(ctx, o, names, f.req, w); err != nil {
		return p, err
	}
	for i := range p.Models {
		p.Models[i].Flags = f.flags()
	}
	return p, p.Rates(ctx, int64(f.load), func() (device.Device, error) {
		hardware.MemoryCapBytes = 0
		d, err := devices.Open(f.stack.device, hardware)
		if err != nil {
			return nil, usageError{err}
		}
		return d, nil
	})
}

// flags are those to run a model with as it is planned.
func (f *planFlags) flags() []string {
	var out []string
	if f.stack.device != defaultDevice {
		out = append(out, "--device", f.stack.device)
	}
	if f.stack.budget > 0 {
		out = append(out, "--memory-budget", flagSize(int64(f.stack.budget)))
	}
	if f.stack.warm > 0 {
		out = append(out, "--warm-memory", flagSize(int64(f.stack.warm)))
	}
	for _, kind := range stage.Kinds() {
		out = append(out, f.stack.weights.args(kind)...)
	}
	return out
}
