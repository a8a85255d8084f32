package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/orchestrator/api"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// taskUpscale is the task of upscalers.
const taskUpscale = "upscale"

// upscaleFlags are what a larger picture is asked for with.
type upscaleFlags struct {
	generateFlags
	scale                  string
	tile, overlap, padding int32
}

func upscaleCommand() *cobra.Command {
	var f upscaleFlags
	cmd := &cobra.Command{
		Use:     "upscale IN OUT",
		Short:   "Enlarge a picture by the network of an upscaler and exit",
		Example: "  triptych upscale face.png face-4x.png --model 4x-UltraSharp\n  triptych upscale photo.jpg photo-2x.webp --scale 2x",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("expected a picture and the file to write, got %d arguments", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f.output = args[1]
			spec, err := f.upscaleSpec(cmd, args[0])
			if err != nil {
				return err
			}
			return f.ask(cmd, spec)
		},
	}
	flags := cmd.Flags()
	f.stack.add(cmd)
	f.stack.share.add(flags)
	f.logs.add(flags, "error")
	f.server.add(flags, "", "use the orchestrator at this address instead of starting one")
	flags.StringVar(&f.model, "model", "", "name of an upscaler (triptych models lists them), or the file of one (default: the only one)")
	flags.StringVar(&f.scale, "scale", "", "how much larger, such as 2x: what the network makes is changed to it by Lanczos' filter (default: the network's own)")
	flags.Int32Var(&f.tile, "tile", 0, "side of tiles in pixels of the picture that goes in; 0 is one tile, or the largest that memory allows")
	flags.Int32Var(&f.overlap, "overlap", 0, "pixels in which tiles fade into each other (default 16)")
	flags.Int32Var(&f.padding, "padding", 0, "pixels around a tile that are computed with it and cut off (default: what the network sees, or 24)")
	flags.BoolVar(&f.json, "json", false, "print events as JSON lines instead of progress")
	completeBy(cmd, "model", completeAdapters("upscaler"))
	return cmd
}

// upscaleSpec is the request, checked as far as it can be without a server.
func (f *upscaleFlags) upscaleSpec(cmd *cobra.Command, picture string) (*triptychv1alpha1.GenerationSpec, error) {
	format, err := f.format()
	if err != nil {
		return nil, err
	}
	spec := &triptychv1alpha1.GenerationSpec{
		Model: f.model, Task: taskUpscale, Output: &triptychv1alpha1.OutputOptions{Format: format}, Options: map[string]*triptychv1alpha1.OptionValue{},
	}
	given := cmd.Flags().Changed
	if given("scale") {
		scale, err := parseScale("scale", f.scale)
		if err != nil {
			return nil, err
		}
		spec.Options["upscale"] = scale
	}
	for flag, n := range map[string]int32{"tile": f.tile, "overlap": f.overlap, "padding": f.padding} {
		if given(flag) {
			spec.Options["upscale_"+flag] = &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Int{Int: int64(n)}}
		}
	}
	if spec.InitImage, err = readInput(cmd.Context(), "picture", picture); err != nil {
		return nil, err
	}
	return spec, api.CheckPictures(map[string][]byte{"init_image": spec.InitImage})
}

// parseScale reads 2x, 2 or 1.5x.
func parseScale(flag, text string) (*triptychv1alpha1.OptionValue, error) {
	x, err := strconv.ParseFloat(strings.TrimSuffix(strings.ToLower(text), "x"), 64)
	if err != nil || !(x > 0 && x <= 16) {
		return nil, usageError{fmt.Errorf("--%s %s: expected a factor up to 16, such as 2x", flag, text)}
	}
	return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Float{Float: x}}, nil
}

// upscalers are the models with the task, by name.
func upscalers(models []*triptychv1alpha1.Model) (names []string) {
	for _, m := range models {
		if slices.ContainsFunc(m.GetTasks(), func(t *triptychv1alpha1.Task) bool { return t.GetName() == taskUpscale }) {
			names = append(names, m.GetName())
		}
	}
	return names
}

// chooseUpscaler names the only upscaler of a server where the request names none.
func (f *generateFlags) chooseUpscaler(ctx context.Context, conn *grpc.ClientConn, spec *triptychv1alpha1.GenerationSpec) error {
	models, err := readyModels(ctx, conn)
	if err != nil {
		return f.server.told(conn, err)
	}
	names := upscalers(models)
	if len(names) == 1 {
		spec.Model = names[0]
		return nil
	}
	if len(names) == 0 {
		return stage.Invalid(stage.ModelNotFound, "model", "", "an upscaler, and there is none in the folders of models")
	}
	return usageError{errors.New("--model: expected one of the upscalers " + strings.Join(names, ", "))}
}
