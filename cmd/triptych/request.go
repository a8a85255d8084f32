package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/orchestrator/api"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// defaultModel is the model of `generate` and of the example of `up`, where it is among several.
const defaultModel = "starter"

// byDefault is the model of a request that names none: the only one, or the default if that is there. Else the server decides.
func byDefault(names []string) string {
	switch {
	case len(names) == 1:
		return names[0]
	case slices.Contains(names, defaultModel):
		return defaultModel
	}
	return ""
}

// files reads the files to begin with. Whatever the server would refuse of pictures is refused here.
func (f *generateFlags) files(cmd *cobra.Command, spec *triptychv1alpha1.GenerationSpec) (err error) {
	given := cmd.Flags().Changed
	for _, flag := range []string{"mask", "strength"} {
		if given(flag) && !given("init-image") {
			return usageError{fmt.Errorf("--%s %v: expected --init-image beside it", flag, cmd.Flags().Lookup(flag).Value)}
		}
	}
	if s := f.strength; given("strength") && !(s > 0 && s <= 1) {
		return stage.Invalid(stage.InvalidField, "strength", s, "a number above 0, up to 1")
	}
	pictures := map[string][]byte{}
	for _, in := range []struct {
		flag, name, path string
		to               *[]byte
	}{{"init-image", "init_image", f.initImage, &spec.InitImage}, {"mask", "mask", f.mask, &spec.Mask}} {
		if !given(in.flag) {
			continue
		}
		if *in.to, err = readInput(cmd.Context(), in.flag, in.path); err != nil {
			return err
		}
		pictures[in.name] = *in.to
	}
	for _, input := range f.inputs {
		name, path, ok := strings.Cut(input, "=")
		if !ok || name == "" {
			return usageError{fmt.Errorf("--input %q: expected NAME=FILE", input)}
		}
		if spec.Inputs == nil {
			spec.Inputs = map[string][]byte{}
		}
		if spec.Inputs[name], err = readInput(cmd.Context(), "input", path); err != nil {
			return err
		}
	}
	return api.CheckPictures(pictures)
}

// readInput reads the file of a flag, no more of it than tells that it is too large. A pipe that nobody writes to is waited for
// until the context ends.
func readInput(ctx context.Context, flag, path string) ([]byte, error) {
	read := make(chan struct{})
	var got []byte
	var failed error
	go func() {
		defer close(read)
		var file *os.File
		if file, failed = openFile(flag, path); failed != nil {
			return
		}
		defer file.Close()
		if got, failed = io.ReadAll(io.LimitReader(file, api.MaxInputBytes+1)); failed != nil {
			failed = usageError{fmt.Errorf("--%s: %w", flag, failed)}
		}
	}()
	select {
	case <-read:
		return got, failed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// resolve fills in what depends on the server's models: which one is meant, and the types of its options. What is not as it was
// meant is told to hints.
func (f *generateFlags) resolve(ctx context.Context, conn *grpc.ClientConn, spec *triptychv1alpha1.GenerationSpec, hints io.Writer) (err error) {
	if spec.GetTask() == taskUpscale {
		if spec.GetModel() == "" {
			err = f.chooseUpscaler(ctx, conn, spec)
		}
		return err
	}
	var models []*triptychv1alpha1.Model
	asks := len(f.options) > 0 || f.picture.file != ""
	switch started := f.server.address == ""; {
	case asks && started:
		models, err = readyModels(ctx, conn)
	case asks || spec.GetModel() == "" && !started:
		var list *triptychv1alpha1.ListModelsResponse
		list, err = triptychv1alpha1.NewModelServiceClient(conn).ListModels(ctx, &triptychv1alpha1.ListModelsRequest{})
		models = list.GetModels()
	}
	if err != nil {
		return f.server.told(conn, err)
	}
	var names, drawing []string
	for _, m := range models {
		names = append(names, m.GetName())
		if m.GetAdapter() == "" {
			drawing = append(drawing, m.GetName())
		}
	}
	if spec.GetModel() == "" {
		spec.Model = byDefault(drawing)
	}
	if !asks {
		return nil
	}
	i := slices.Index(names, spec.GetModel())
	if i < 0 || len(models[i].GetTasks()) == 0 {
		err := stage.NoSuchModel(spec.GetModel(), drawing)
		if spec.GetModel() == f.picture.model {
			return fmt.Errorf("--from-png %s: %w; --model names another than the picture's", f.picture.file, err)
		}
		return err
	}
	task := models[i].GetTasks()[0]
	for _, t := range models[i].GetTasks() {
		if t.GetName() == spec.GetTask() {
			task = t
		}
	}
	known := map[string]*triptychv1alpha1.Option{}
	var all []string
	for _, o := range task.GetOptions() {
		known[o.GetName()] = o
		all = append(all, o.GetName())
	}
	if spec.Options == nil {
		spec.Options = map[string]*triptychv1alpha1.OptionValue{}
	}
	for _, option := range f.options {
		name, text, _ := strings.Cut(option, "=")
		if known[name] == nil {
			return stage.Invalid(stage.InvalidField, "option", name, "an option of the model: "+strings.Join(all, ", "))
		}
		if spec.Options[name], err = optionValue(known[name].GetType(), text); err != nil {
			return notOfType("option "+name, text, known[name])
		}
	}
	return f.picture.apply(spec, known, hints)
}

// notOfType refuses what cannot be the value of an option.
func notOfType(field, text string, o *triptychv1alpha1.Option) error {
	return stage.Invalid(stage.InvalidField, field, text, "a value of type "+strings.ToLower(strings.TrimPrefix(o.GetType().String(), "TYPE_")))
}

// optionValue reads the value of an option.
func optionValue(as triptychv1alpha1.Option_Type, text string) (*triptychv1alpha1.OptionValue, error) {
	switch as {
	case triptychv1alpha1.Option_TYPE_INT:
		n, err := strconv.ParseInt(text, 10, 64)
		return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Int{Int: n}}, err
	case triptychv1alpha1.Option_TYPE_FLOAT:
		x, err := strconv.ParseFloat(text, 64)
		return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Float{Float: x}}, err
	case triptychv1alpha1.Option_TYPE_BOOL:
		b, err := strconv.ParseBool(text)
		return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Bool{Bool: b}}, err
	}
	return &triptychv1alpha1.OptionValue{Value: &triptychv1alpha1.OptionValue_Text{Text: text}}, nil
}
