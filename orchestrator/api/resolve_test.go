package api

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// option is an option of a recipe, to be changed.
func option(r stage.Recipe, name string) *stage.OptionSpec {
	return &r.Options[slices.IndexFunc(r.Options, func(o stage.OptionSpec) bool { return o.Name == name })]
}

func everyStep() *triptychv1alpha1.PreviewOptions {
	return &triptychv1alpha1.PreviewOptions{EveryNSteps: 1}
}

// TestDiskFull: a disk that has no room for a large image's temporary file refuses the request before any work.
func TestDiskFull(t *testing.T) {
	fleet := fleettest.New(t, fleettest.Trio()...)
	fleet.Service(stage.KindDecoder).Before = func(_ context.Context, call string) error {
		if call == "plan" {
			return stage.Errorf(stage.DiskFull, "scripted").With("needed_bytes", "2").With("available_bytes", "1")
		}
		return nil
	}
	for _, s := range fleet.Services {
		s.Start()
	}
	fleet.Known(t)
	r := over(t, fleet, nil)
	events, err := r.generate(t, small())
	refused(t, err, codes.ResourceExhausted, stage.DiskFull)
	if m := info(err).GetMetadata(); len(events) > 0 || m["needed_bytes"] != "2" || m["available_bytes"] != "1" {
		t.Errorf("%d events, metadata %v", len(events), m)
	}
	if n := len(r.Rig.Service(stage.KindEncoder).Works("encode")); n > 0 {
		t.Errorf("%d prompts were encoded", n)
	}
}

// TestRefused has the errors of a request that sends no files. None needs work of a stage.
func TestRefused(t *testing.T) {
	r := up(t, nil)
	type output = triptychv1alpha1.OutputOptions
	for name, c := range map[string]struct {
		change func(*spec)
		reason stage.Reason
		field  string
	}{
		"NUL in a prompt":     {func(s *spec) { s.Prompt = "fox\x00on blue" }, stage.InvalidField, "prompt"},
		"NUL in a JPEG's":     {func(s *spec) { s.NegativePrompt, s.Output = "\x00", &triptychv1alpha1.OutputOptions{Format: "jpeg"} }, stage.InvalidField, "negative_prompt"},
		"long prompt":         {func(s *spec) { s.Prompt = strings.Repeat("x", 8192+1) }, stage.InvalidField, "prompt"},
		"long negative":       {func(s *spec) { s.NegativePrompt = strings.Repeat("é", 8192/2+1) }, stage.InvalidField, "negative_prompt"},
		"guidance NaN":        {func(s *spec) { s.GuidanceScale = ptr(float32(math.NaN())) }, stage.InvalidField, "guidance_scale"},
		"guidance negative":   {func(s *spec) { s.GuidanceScale = ptr(float32(-0.1)) }, stage.InvalidField, "guidance_scale"},
		"guidance infinite":   {func(s *spec) { s.GuidanceScale = ptr(float32(math.Inf(1))) }, stage.InvalidField, "guidance_scale"},
		"guidance 101":        {func(s *spec) { s.GuidanceScale = ptr(float32(101)) }, stage.InvalidField, "guidance_scale"},
		"no image":            {func(s *spec) { s.ImageCount = ptr(int32(0)) }, stage.InvalidField, "image_count"},
		"many images":         {func(s *spec) { s.ImageCount = ptr(int32(maxImages + 1)) }, stage.InvalidField, "image_count"},
		"no step":             {func(s *spec) { s.Steps = ptr(int32(0)) }, stage.InvalidField, "steps"},
		"many steps":          {func(s *spec) { s.Steps = ptr(int32(1001)) }, stage.InvalidField, "steps"},
		"negative steps":      {func(s *spec) { s.Steps = ptr(int32(math.MinInt32)) }, stage.InvalidField, "steps"},
		"quality 0":           {func(s *spec) { s.Output = &output{Quality: ptr(int32(0))} }, stage.InvalidField, "output.quality"},
		"quality 101":         {func(s *spec) { s.Output = &output{Quality: ptr(int32(101))} }, stage.InvalidField, "output.quality"},
		"format":              {func(s *spec) { s.Output = &output{Format: "PNG"} }, stage.InvalidField, "output.format"},
		"negative previews":   {func(s *spec) { s.Preview = &triptychv1alpha1.PreviewOptions{EveryNSteps: -1} }, stage.InvalidField, "preview.every_n_steps"},
		"rare previews":       {func(s *spec) { s.Preview = &triptychv1alpha1.PreviewOptions{EveryNSteps: 1001} }, stage.InvalidField, "preview.every_n_steps"},
		"no width":            {func(s *spec) { s.WidthPx = ptr(int32(0)) }, stage.SizeUnsupported, "width_px"},
		"huge width":          {func(s *spec) { s.WidthPx = ptr(int32(math.MaxInt32)) }, stage.SizeUnsupported, "width_px"},
		"negative height":     {func(s *spec) { s.HeightPx = ptr(int32(-8)) }, stage.SizeUnsupported, "height_px"},
		"width no multiple":   {func(s *spec) { s.WidthPx = ptr(int32(12)) }, stage.SizeUnsupported, "width_px"},
		"height no multiple":  {func(s *spec) { s.HeightPx = ptr(int32(33)) }, stage.SizeUnsupported, "height_px"},
		"more than the model": {func(s *spec) { s.HeightPx = ptr(int32(4096)) }, stage.SizeUnsupported, "height_px"},
		"sampler":             {func(s *spec) { s.Sampler = "eulr" }, stage.SamplerUnsupported, "sampler"},
		"model":               {func(s *spec) { s.Model = "sd9" }, stage.ModelNotFound, "model"},
		"default model":       {func(s *spec) { s.Model = "" }, stage.ModelNotFound, "model"}, // there are several
	} {
		s := small()
		c.change(s)
		events, err := r.generate(t, s)
		code := codes.InvalidArgument
		if c.reason == stage.ModelNotFound {
			code = codes.NotFound
		}
		refused(t, err, code, c.reason)
		if m := info(err).GetMetadata(); m["field"] != c.field || m["accepted"] == "" || len(events) > 0 {
			t.Errorf("%s: metadata %v after %d events", name, m, len(events))
		}
	}
	for at := range r.Services { // nothing was paid for
		if n := len(r.Services[at].Works("encode")) + len(r.Services[at].Works("denoise")); n > 0 {
			t.Errorf("%d calls of %s for requests that are refused", n, r.Services[at].Address)
		}
	}
	for model, reason := range map[string]stage.Reason{stagetest.Broken: stage.ModelInvalid, stagetest.TooLarge: stage.ModelDoesNotFit} {
		s := small()
		s.Model = model
		events, err := r.generate(t, s)
		refused(t, err, codes.FailedPrecondition, reason)
		if len(events) > 0 {
			t.Errorf("%s: was accepted", model)
		}
	}
	if _, err := rest(r.start(fleettest.Soon(t), t, nil)); info(err).GetMetadata()["field"] != "spec" {
		t.Errorf("no spec: %v", err)
	}
	for _, kind := range stage.Kinds() {
		if n := r.Service(kind).Script.Steps(stagetest.OpLoad); n > 0 {
			t.Errorf("the %v loaded", kind)
		}
	}
}

// TestResolved: what is accepted is told with every default, and asking for that again asks for the same.
func TestResolved(t *testing.T) {
	r := up(t, nil)
	accepted := func(s *spec) *spec {
		events, err := r.generate(t, s)
		if err != nil {
			t.Fatal(err)
		}
		return events[0].GetAccepted().GetSpec()
	}
	got := accepted(&spec{Model: stagetest.Model, Prompt: "a boat"})
	want := &spec{
		Model: stagetest.Model, Task: "generate", Strength: ptr(0.8), Prompt: "a boat", WidthPx: ptr(int32(32)), HeightPx: ptr(int32(32)), ImageCount: ptr(int32(1)), Seed: got.Seed,
		Steps: ptr(int32(20)), GuidanceScale: ptr(float32(5)), Sampler: "euler",
		Output: &triptychv1alpha1.OutputOptions{Format: "png", Quality: ptr(int32(90))}, Preview: &triptychv1alpha1.PreviewOptions{},
	}
	if !proto.Equal(got, want) || got.GetSeed() >= 1<<53 {
		t.Errorf("got %v, want %v", got, want)
	}
	if again := accepted(got); !proto.Equal(again, got) {
		t.Errorf("again %v, want %v", again, got)
	}
	full := &spec{
		Model: stagetest.OtherModel, Task: "generate", Strength: ptr(0.3), Prompt: strings.Repeat("x", 8192), NegativePrompt: "fog", WidthPx: ptr(int32(8)), HeightPx: ptr(int32(256)),
		ImageCount: ptr(int32(2)), Seed: ptr(uint64(math.MaxUint64)), Steps: ptr(int32(1)), GuidanceScale: ptr(float32(0)), Sampler: "heun",
		Output: &triptychv1alpha1.OutputOptions{Format: "jpeg", Quality: ptr(int32(1)), OmitMetadata: true}, Preview: everyStep(),
	}
	if got := accepted(full); !proto.Equal(got, full) {
		t.Errorf("got %v, want %v", got, full)
	}
	if got := accepted(&spec{Model: stagetest.Model}); got.GetPrompt() != "" {
		t.Errorf("no prompt became %q", got.GetPrompt())
	}
}

// TestOwnSamplerThatCannotBeUsed: a model whose own scheduler cannot be used is drawn with by those that can.
func TestOwnSamplerThatCannotBeUsed(t *testing.T) {
	const problem = "the model's own scheduler KDPM2DiscreteScheduler cannot be used (the class is not known)"
	f := fleettest.New(t, fleettest.Trio()...)
	f.Service(stage.KindDenoiser).Edit(func(i *stage.Info) {
		for _, r := range recipes(i) {
			o := option(*r, "sampler")
			o.Default, o.Problem = stage.Option{}, problem
		}
	})
	r := over(t, f, nil)
	for _, s := range f.Services {
		s.Start()
	}
	f.Known(t)
	_, err := r.generate(t, small())
	refused(t, err, codes.InvalidArgument, stage.SamplerUnsupported)
	if accepted := info(err).GetMetadata()["accepted"]; accepted != "one of euler, heun, since "+problem {
		t.Errorf("accepted: %s", accepted)
	}
	s := small()
	s.Sampler = "heun"
	if events, err := r.generate(t, s); err != nil || events[0].GetAccepted().GetSpec().GetSampler() != "heun" {
		t.Errorf("with another sampler: %v", err)
	}
	models, err := r.models.ListModels(fleettest.Soon(t), &triptychv1alpha1.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range models.GetModels() {
		if m.GetName() == stagetest.Model && (m.GetDefaultSampler() != "" || m.GetSamplerProblem() != problem || m.GetProblem() != "") {
			t.Errorf("listed as %v", m)
		}
	}
}

// TestDefaultSizeAndNextSizes: sides differ where the model's do, and a side that is no multiple is told the next ones that are.
func TestDefaultSizeAndNextSizes(t *testing.T) {
	f := fleettest.New(t, fleettest.Trio()...)
	f.Service(stage.KindDenoiser).Edit(func(i *stage.Info) {
		for _, r := range recipes(i) {
			option(*r, "width").Default.Int, option(*r, "height").Default.Int = 24, 16
		}
	})
	r := over(t, f, nil)
	for _, s := range f.Services {
		s.Start()
	}
	f.Known(t)
	s := small()
	s.WidthPx, s.HeightPx = nil, nil
	events, err := r.generate(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if got := events[0].GetAccepted().GetSpec(); got.GetHeightPx() != 16 || got.GetWidthPx() != 24 {
		t.Errorf("%dx%d, want 24x16", got.GetWidthPx(), got.GetHeightPx())
	}
	s.WidthPx = ptr(int32(27))
	_, err = r.generate(t, s)
	refused(t, err, codes.InvalidArgument, stage.SizeUnsupported)
	if m := info(err).GetMetadata(); m["field"] != "width_px" || m["value"] != "27" || m["accepted"] != "a multiple of 8 up to 256 pixels, such as 24 or 32" {
		t.Errorf("%v", m)
	}
}

func TestListModels(t *testing.T) {
	f := fleettest.New(t, fleettest.Trio()...)
	f.Service(stage.KindDenoiser).Edit(func(i *stage.Info) {
		i.Models = slices.DeleteFunc(i.Models, func(m stage.Model) bool { return m.Name == stagetest.TooLarge })
		i.Components = slices.DeleteFunc(i.Components, func(c stage.Component) bool { return c.Model == stagetest.TooLarge })
		for k := range i.Models {
			if i.Models[k].Name == stagetest.OtherModel {
				i.Models[k].Recipes[0].Turns[2].Takes[0].Shape[2] = "1024"
			}
		}
	})
	r := over(t, f, nil)
	list := func() map[string]*triptychv1alpha1.Model {
		res, err := r.models.ListModels(fleettest.Soon(t), &triptychv1alpha1.ListModelsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]*triptychv1alpha1.Model{}
		for i, m := range res.GetModels() {
			out[m.GetName()] = m
			if i > 0 && res.GetModels()[i-1].GetName() >= m.GetName() {
				t.Errorf("%s is out of order", m.GetName())
			}
		}
		return out
	}
	if got := list(); len(got) > 0 {
		t.Errorf("before anybody answered: %v", got)
	}
	for _, s := range f.Services {
		s.Start()
	}
	f.Known(t)
	got := list()
	for name, says := range map[string]string{
		stagetest.Model: "", stagetest.Broken: "the header is cut off", stagetest.OtherModel: "do not fit", stagetest.TooLarge: "no denoiser service has",
	} {
		if p := got[name].GetProblem(); (p == "") != (says == "") || !strings.Contains(p, says) {
			t.Errorf("%s: problem %q, want %q", name, p, says)
		}
	}
	m := got[stagetest.Model]
	if m.GetDefaultWidthPx() != 32 || m.GetSizeMultiplePx() != 8 || m.GetMaxTokens() != 8 || !slices.Equal(m.GetSamplers(), []string{"euler", "heun"}) ||
		len(m.GetStages()) != 3 || m.GetStages()[2].GetStage() != "decoder" || m.GetStages()[2].GetWeightsBytes() != 4000 {
		t.Errorf("%v", m)
	}
}
