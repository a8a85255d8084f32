package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/internal/local"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// generateFlags are what one image is asked for with. Numbers that are not given are left to the
// server.
type generateFlags struct {
	stack          stackFlags
	logs           logFlags
	server         serverFlags
	model          string
	negativePrompt string
	width, height  int32
	steps, count   int32
	guidanceScale  float32
	sampler        string
	schedule       string
	seed           uint64
	initImage      string // files
	mask           string
	strength       float64
	inputs         []string // NAME=FILE
	options        []string // NAME=VALUE
	enlarge        enlargeFlags
	adapters       adapterFlags
	output         string
	preview        int32
	json           bool
	picture        fromPicture
}

func generateCommand() *cobra.Command {
	var f generateFlags
	cmd := &cobra.Command{
		Use:   "generate PROMPT",
		Short: "Make one image (or several) and exit",
		Example: "  triptych generate \"" + examplePrompt + "\" -o face.png\n" +
			"  triptych generate \"fox on a blue background\" --init-image face.png --strength 0.6 -o fox.png\n" +
			"  triptych generate --from-png fox.png --init-image face.png --seed 2 -o other.png",
		Args: func(_ *cobra.Command, args []string) error {
			if n := len(args); n > 1 || n == 0 && f.picture.file == "" {
				return usageError{fmt.Errorf("expected one prompt, in quotes, got %d arguments", n)}
			}
			return nil
		},
		RunE: f.run,
	}
	f.add(cmd)
	return cmd
}

func (f *generateFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	f.stack.add(cmd)
	warmFlag(flags, &f.stack.warm)
	f.stack.share.add(flags)
	f.logs.add(flags, "error")
	f.server.add(flags, "", "use the orchestrator at this address instead of starting one")
	flags.StringVar(&f.model, "model", "", "name of a model (triptych models lists them), or the directory or file of one (default: "+defaultModel+" if it is there, or the only one)")
	flags.StringVar(&f.negativePrompt, "negative-prompt", "", "what to avoid")
	flags.Int32Var(&f.width, "width", 0, "width in pixels (default: the model's own)")
	flags.Int32Var(&f.height, "height", 0, "height in pixels (default: the model's own)")
	flags.Int32Var(&f.steps, "steps", 0, "inference steps (default 20)")
	flags.Float32Var(&f.guidanceScale, "guidance-scale", 0, "weight of the prompt; up to 1 is unguided (default 5)")
	flags.StringVar(&f.sampler, "sampler", "", "sampler, e.g. euler, also by other programs' names, such as \"DPM++ 2M Karras\" (default: the model's own)")
	flags.StringVar(&f.schedule, "schedule", "", "how noise levels are spaced, e.g. karras (default: the model's or the sampler's own)")
	flags.Uint64Var(&f.seed, "seed", 0, "seed of the noise (default: a new one)")
	flags.Int32Var(&f.count, "count", 0, "images to make, with seeds that count up (default 1)")
	flags.StringVar(&f.initImage, "init-image", "", "picture to begin with, of which --strength changes so much: a PNG, JPEG or WebP file, scaled to the image (whose sides by default are the picture's)")
	flags.StringVar(&f.mask, "mask", "", "picture that is white where --init-image is to be painted over, and black where it is to stay")
	flags.Float64Var(&f.strength, "strength", 0, "how much --init-image is changed, above 0 and up to 1 (default 0.8)")
	f.adapters.add(flags)
	flags.StringArrayVar(&f.inputs, "input", nil, "file that the model takes, NAME=FILE, and that has no flag here (triptych models MODEL lists them); may be repeated")
	flags.StringArrayVar(&f.options, "option", nil, "option of the model, NAME=VALUE, that has no flag here (triptych models MODEL lists them); may be repeated")
	f.enlarge.add(flags)
	flags.StringVarP(&f.output, "output", "o", "triptych.png", "file to write: .png, .jpg or .webp, several images, and the parts that one comes in, get numbers; - writes a PNG to standard output")
	flags.Int32Var(&f.preview, "preview", 0, "write a preview beside the output every so many steps")
	flags.BoolVar(&f.json, "json", false, "print events as JSON lines instead of progress")
	flags.StringVar(&f.picture.file, "from-png", "", "repeat this picture (PNG, JPEG or WebP; - is standard input) by the settings that Triptych, A1111's web UI, its relatives or ComfyUI left in it; a prompt and flags that are given come before them")
}

// run makes the images.
func (f *generateFlags) run(cmd *cobra.Command, args []string) (err error) {
	prompt := ""
	if f.picture.file != "" {
		if prompt, err = f.repeat(cmd); err != nil {
			return err
		}
	}
	if len(args) > 0 {
		prompt = args[0]
	}
	f.options, f.inputs = append(f.options, f.adapters.options()...), append(f.inputs, f.adapters.inputs()...)
	spec, err := f.spec(cmd, prompt)
	if err != nil {
		return err
	}
	return f.ask(cmd, spec)
}

// ask makes the images of a request.
func (f *generateFlags) ask(cmd *cobra.Command, spec *triptychv1alpha1.GenerationSpec) (err error) {
	files, err := newOutput(f.output, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	ctx, conn, stop, err := f.connect(cmd, spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	view := newView(cmd, f.json, talk(cmd, f.output))
	err = f.receive(ctx, conn, spec, files, view, cmd.ErrOrStderr())
	view.close()
	if err != nil && cmd.Context().Err() == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // the server that was started cannot run
	}
	return err
}

// spec is the request, checked as far as it can be without a server.
func (f *generateFlags) spec(cmd *cobra.Command, prompt string) (*triptychv1alpha1.GenerationSpec, error) {
	for name, text := range map[string]string{"the prompt": prompt, "--negative-prompt": f.negativePrompt} {
		if !utf8.ValidString(text) {
			return nil, usageError{fmt.Errorf("%s is not valid UTF-8", name)}
		}
	}
	if g := float64(f.guidanceScale); math.IsNaN(g) || math.IsInf(g, 0) {
		return nil, usageError{fmt.Errorf("--guidance-scale %v is not a number", g)}
	}
	format, err := f.format()
	if err != nil {
		return nil, err
	}
	spec := &triptychv1alpha1.GenerationSpec{
		Model: cmp.Or(f.model, f.picture.model), Task: f.picture.task, Prompt: prompt, NegativePrompt: f.negativePrompt, Sampler: f.sampler,
		Output:  &triptychv1alpha1.OutputOptions{Format: format},
		Preview: &triptychv1alpha1.PreviewOptions{EveryNSteps: f.preview},
	}
	given := cmd.Flags().Changed
	for name, set := range map[string]func(){
		"width": func() { spec.WidthPx = &f.width }, "height": func() { spec.HeightPx = &f.height },
		"steps": func() { spec.Steps = &f.steps }, "count": func() { spec.ImageCount = &f.count },
		"guidance-scale": func() { spec.GuidanceScale = &f.guidanceScale }, "seed": func() { spec.Seed = &f.seed },
		"strength": func() { spec.Strength = &f.strength },
	} {
		if given(name) {
			set()
		}
	}
	if err := f.files(cmd, spec); err != nil {
		return nil, err
	}
	if err := f.enlarge.set(cmd, spec); err != nil {
		return nil, err
	}
	f.sampling(spec)
	for _, option := range f.options {
		if name, _, ok := strings.Cut(option, "="); !ok || name == "" {
			return nil, usageError{fmt.Errorf("--option %q: expected NAME=VALUE", option)}
		}
	}
	return spec, nil
}

// sampling names sampler and schedule as models do, whatever program's names they have; those of none are left for the server, which knows
// what there is.
func (f *generateFlags) sampling(spec *triptychv1alpha1.GenerationSpec) {
	schedule := f.schedule
	if choice, err := sampler.Parse(f.sampler, schedule); err == nil {
		spec.Sampler, schedule = choice.Sampler, choice.Schedule
	}
	if schedule != "" {
		f.options = append(f.options, "schedule="+schedule)
	}
}

// format is that of the output: what the name ends in, or png for a stream.
func (f *generateFlags) format() (string, error) {
	if isStream(f.output) {
		for _, refused := range []struct {
			is       bool
			flag, as string
		}{
			{f.count > 1, fmt.Sprintf("count %d", f.count), "takes one image"},
			{f.preview > 0, fmt.Sprintf("preview %d", f.preview), "has no place for previews"},
			{f.json && isStandardOutput(f.output), "json", "is where events would go"},
		} {
			if refused.is {
				return "", usageError{fmt.Errorf("--%s: --output %s %s, expected the name of a file", refused.flag, f.output, refused.as)}
			}
		}
	}
	format := strings.TrimPrefix(strings.ToLower(filepath.Ext(f.output)), ".")
	switch {
	case format == "jpg":
		format = "jpeg"
	case format == "" && isStream(f.output):
		format = "png"
	}
	if !slices.Contains(stage.ImageFormats(), format) {
		return "", usageError{fmt.Errorf("--output %s: expected a name that ends in .png, .jpg, .jpeg or .webp, or - for a PNG to standard output", f.output)}
	}
	return format, nil
}

// connect reaches the server asked for, or starts one on this machine; ctx ends when that one cannot
// run. A model given as a directory is served under its folder's name.
func (f *generateFlags) connect(cmd *cobra.Command, spec *triptychv1alpha1.GenerationSpec) (ctx context.Context, conn *grpc.ClientConn, stop func() error, err error) {
	ctx = cmd.Context()
	address, stopStack := f.server.address, func() error { return nil }
	if address == "" {
		log, err := f.logs.logger()
		if err != nil {
			return nil, nil, nil, err
		}
		var extra []string
		path, name, ok, err := modelDirectory(f.model)
		if err != nil {
			return nil, nil, nil, err
		}
		if ok {
			extra, spec.Model = []string{path}, name
			if !cmd.Flags().Changed("models") {
				f.stack.models = nil // a directory needs no others
			}
		}
		if spec.Model == "" && spec.Task != taskUpscale {
			library, err := openLibrary(nil, f.stack.models...)
			if err != nil {
				return nil, nil, nil, err
			}
			spec.Model = byDefault(library.Names())
		}
		s, err := f.stack.start("127.0.0.1:0", "", f.logs, cmd.ErrOrStderr(), log, extra...)
		if err != nil {
			return nil, nil, nil, err
		}
		running, release := whileRunning(ctx, s)
		ctx, address = running, s.Address(local.Orchestrator)
		stopStack = func() error { release(); return s.Stop() }
	}
	if conn, err = dial(address, f.server.tls); err != nil {
		return nil, nil, nil, errors.Join(err, stopStack())
	}
	return ctx, conn, func() error { return errors.Join(conn.Close(), stopStack()) }, nil
}

// firstWord is how long a request goes without a word of the server before somebody asks why.
const firstWord = 3 * time.Second

// silence says why a request has not been accepted yet, as far as the server tells.
func silence(ctx context.Context, conn *grpc.ClientConn) string {
	ctx, cancel := context.WithTimeout(ctx, firstWord)
	defer cancel()
	list, err := triptychv1alpha1.NewModelServiceClient(conn).ListModels(ctx, &triptychv1alpha1.ListModelsRequest{})
	if err != nil {
		return "the server does not answer"
	}
	var why []string
	for _, s := range list.GetServices() {
		if s.GetProblem() != "" {
			why = append(why, fmt.Sprintf("%s %s: %s", s.GetStage(), s.GetAddress(), s.GetProblem()))
		}
	}
	if len(why) == 0 {
		return "the server has not accepted the request yet"
	}
	return strings.Join(why, "; ")
}

// receive asks for the images, shows what happens and writes the files. A server that was just
// started needs a moment, for which it waits; one that was given should be there. Why either is silent is told to hints.
func (f *generateFlags) receive(ctx context.Context, conn *grpc.ClientConn, spec *triptychv1alpha1.GenerationSpec, files *output, view view, hints io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	silent := time.AfterFunc(firstWord, func() {
		if why := silence(ctx, conn); ctx.Err() == nil {
			fmt.Fprintln(hints, "waiting:", why)
		}
	})
	defer silent.Stop()
	defer cancel()
	if err := f.resolve(ctx, conn, spec, hints); err != nil {
		return err
	}
	stream, err := triptychv1alpha1.NewGenerationServiceClient(conn).Generate(ctx, &triptychv1alpha1.GenerateRequest{Spec: spec}, grpc.WaitForReady(f.server.address == ""))
	begun := false
	for err == nil {
		var event *triptychv1alpha1.GenerateResponse
		if event, err = stream.Recv(); err == nil {
			begun = true
			if event.GetQueued() == nil { // else it waits for a stage to tell of its model
				silent.Stop()
			}
			if err := files.take(ctx, event); err != nil {
				return err
			}
			if err := view.show(event, files); err != nil {
				return err
			}
		}
	}
	told := f.server.told(conn, err)
	if begun && status.Code(err) == codes.Unavailable && stage.ReasonOf(told) == "" {
		return fmt.Errorf("%w; its work is lost, and the request may be repeated", told)
	}
	return told
}

// jsonView prints events as they are, without the bytes of images.
type jsonView struct{ w io.Writer }

func (v jsonView) show(event *triptychv1alpha1.GenerateResponse, _ *output) error {
	switch e := event.GetEvent().(type) {
	case *triptychv1alpha1.GenerateResponse_ImageReady:
		e.ImageReady.Data = nil
	case *triptychv1alpha1.GenerateResponse_Preview:
		e.Preview.Data = nil
	case *triptychv1alpha1.GenerateResponse_ImageChunk:
		e.ImageChunk.Data = nil
	}
	line, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: false}.Marshal(event)
	if err == nil {
		_, err = fmt.Fprintf(v.w, "%s\n", line)
	}
	return err
}

func (jsonView) close() {}
