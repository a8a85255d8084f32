package api

import (
	"fmt"
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

// masked is the API over fakes that take a mask beside a picture to begin with.
func masked(t *testing.T) *rig {
	t.Helper()
	f := fleettest.New(t, fleettest.Trio()...)
	for _, s := range f.Services {
		s.Edit(func(i *stage.Info) {
			mask := stage.Port{Name: "mask", Media: "image/*", Optional: true}
			for _, r := range recipes(i) {
				r.Inputs = append(r.Inputs, mask)
				r.Turns[1].Takes = append(r.Turns[1].Takes, mask)
			}
		})
		s.Start()
	}
	f.Known(t)
	return over(t, f, nil)
}

// TestFilesRefused has the errors of files and of options without a field.
func TestFilesRefused(t *testing.T) {
	r := masked(t)
	photo := stagetest.Photo(32, 24).Data
	text := func(s string) *triptychv1alpha1.OptionValue { return optionToProto(stage.TextOption(s)) }
	for name, c := range map[string]struct {
		change   func(*spec)
		reason   stage.Reason
		field    string
		accepted string
	}{
		"no picture":              {func(s *spec) { s.InitImage = []byte("GIF89a") }, stage.InvalidField, "init_image", "a PNG, JPEG or WebP file"},
		"a damaged one":           {func(s *spec) { s.InitImage = wrong(stagetest.Photo(8, 8).Data) }, stage.InvalidField, "init_image", "a PNG, JPEG or WebP file"},
		"a mask alone":            {func(s *spec) { s.Mask = photo }, stage.InvalidField, "mask", "init_image beside it"},
		"an input of no model":    {func(s *spec) { s.Inputs = map[string][]byte{"depth": photo} }, stage.InvalidField, "depth", "one of the model's inputs: init_image, control, mask"},
		"the picture as an input": {func(s *spec) { s.Inputs = map[string][]byte{"init_image": photo} }, stage.InvalidField, "inputs.init_image", "it in init_image"},
		"an option of no model":   {func(s *spec) { s.Options = map[string]*triptychv1alpha1.OptionValue{"clip_skip": text("1")} }, stage.InvalidField, "options.clip_skip", "an option that model \"tiny\" has: prompt, negative_prompt, width, height, steps, guidance_scale, sampler, strength, format, quality, styles"},
		"an option with a field":  {func(s *spec) { s.Options = map[string]*triptychv1alpha1.OptionValue{"width": text("1")} }, stage.InvalidField, "options.width", "it in width_px"},
		"another model's option": {func(s *spec) {
			s.Options = map[string]*triptychv1alpha1.OptionValue{"frames": optionToProto(stage.IntOption(2))}
		}, stage.InvalidField, "options.frames", ""},
		"another type": {func(s *spec) {
			s.Model, s.Options = stagetest.Film, map[string]*triptychv1alpha1.OptionValue{"frames": text("2")}
		}, stage.InvalidField, "options.frames", "a value of type int"},
		"an option without a value": {func(s *spec) {
			s.Model, s.Options = stagetest.Film, map[string]*triptychv1alpha1.OptionValue{"frames": {}}
		}, stage.InvalidField, "options.frames", "a value of type int"},
		"too many frames": {func(s *spec) {
			s.Model, s.Options = stagetest.Film, map[string]*triptychv1alpha1.OptionValue{"frames": optionToProto(stage.IntOption(5))}
		}, stage.InvalidField, "options.frames", "1 to 4"},
		"strength":     {func(s *spec) { s.Strength = ptr(1.01) }, stage.InvalidField, "strength", "a number from 0 to 1"},
		"another task": {func(s *spec) { s.Task = "upscale" }, stage.InvalidField, "task", "one of generate"},
	} {
		s := small()
		c.change(s)
		events, err := r.generate(t, s)
		refused(t, err, codes.InvalidArgument, c.reason)
		if m := info(err).GetMetadata(); m["field"] != c.field || c.accepted != "" && m["accepted"] != c.accepted || len(events) > 0 {
			t.Errorf("%s: metadata %v after %d events", name, m, len(events))
		}
	}
	_, err := filesOf(&spec{InitImage: make([]byte, MaxInputBytes), Inputs: map[string][]byte{"control": {1}}})
	if stage.ReasonOf(err) != stage.InvalidField || !strings.HasSuffix(err.Error(), "at most 16 MiB in all files together") {
		t.Errorf("too many bytes: %v", err)
	}
	s := small()
	s.InitImage = stagetest.Photo(4097, 8).Data
	_, err = r.generate(t, s)
	refused(t, err, codes.InvalidArgument, stage.SizeUnsupported)
	if m := info(err).GetMetadata(); m["value"] != "4097x8" || m["accepted"] != "sides of at most 4096 pixels" {
		t.Errorf("a picture that is too wide: %v", m)
	}
}

// wrong damages the first bytes of a file.
func wrong(data []byte) []byte { return append([]byte{0}, data[1:]...) }

// TestFieldWithoutOption: a field that the model has no option for has to be unset.
func TestFieldWithoutOption(t *testing.T) {
	f := fleettest.New(t, fleettest.Trio()...)
	for _, s := range f.Services {
		s.Edit(func(i *stage.Info) {
			for _, r := range recipes(i) {
				option(*r, "negative_prompt").Name = "dislikes"
			}
		})
		s.Start()
	}
	f.Known(t)
	s := small()
	s.NegativePrompt = "fog"
	_, err := over(t, f, nil).generate(t, s)
	refused(t, err, codes.InvalidArgument, stage.InvalidField)
	if m := info(err).GetMetadata(); m["field"] != "negative_prompt" || m["value"] != "fog" {
		t.Errorf("metadata %v", m)
	}
}

// TestInitImage: a request takes its size from the picture that it begins with, rounded down to what the model can make; what is
// accepted is told without the file.
// TestSizeOfTurnedPicture: a photograph that lies on its side has the size that it is seen in.
func TestSizeOfTurnedPicture(t *testing.T) {
	data := stagetest.Photo(32, 24).Data
	const header = 8 + 12 + 13 // of a PNG; checksums are not looked at before the picture is
	turned := slices.Concat(data[:header], []byte("\x00\x00\x00\x1aeXIfMM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00CRC."), data[header:])
	f, err := picture("init_image", turned)
	if err != nil || f.WidthPx != 24 || f.HeightPx != 32 {
		t.Errorf("%+v, %v, want 24x32", f, err)
	}
}

func TestInitImage(t *testing.T) {
	r := masked(t)
	for _, c := range []struct {
		width, height         int // of the picture
		askedWidth            *int32
		wantWidth, wantHeight int32
	}{
		{32, 24, nil, 32, 24},
		{39, 31, nil, 32, 24},
		{5, 300, ptr(int32(48)), 48, 0}, // more than the model can make
		{5, 16, nil, 8, 16},
	} {
		s := small()
		s.InitImage, s.Strength, s.WidthPx = stagetest.Photo(c.width, c.height).Data, ptr(0.5), c.askedWidth
		events, err := r.generate(t, s)
		if c.wantHeight == 0 {
			refused(t, err, codes.InvalidArgument, stage.SizeUnsupported)
			if m := info(err).GetMetadata(); m["field"] != "height_px" || m["value"] != "296" {
				t.Errorf("metadata %v", m)
			}
			continue
		}
		if len(events) == 0 { // the fake takes no other size than the picture's
			t.Fatal(err)
		}
		got := events[0].GetAccepted().GetSpec()
		if got.GetWidthPx() != c.wantWidth || got.GetHeightPx() != c.wantHeight || got.GetStrength() != 0.5 || len(got.GetInitImage()) > 0 {
			t.Errorf("of %dx%d: accepted %v", c.width, c.height, got)
		}
	}
	s := small()
	s.InitImage = stagetest.Photo(32, 24).Data
	events, err := r.generate(t, s)
	if err != nil {
		t.Fatal(err)
	}
	var turns []string
	for _, e := range events {
		if p := e.GetProgress(); p != nil && p.GetStep() == 1 {
			turns = append(turns, p.GetStage()+" "+p.GetTurn())
		}
	}
	if fmt.Sprint(turns[:2]) != "[encoder encode decoder encode_image]" && fmt.Sprint(turns[:2]) != "[decoder encode_image encoder encode]" {
		t.Errorf("the turns were %q", turns)
	}
}

// TestOptionsByName: options without a field are taken and told by their names; images come in the units that they ask for.
func TestOptionsByName(t *testing.T) {
	r := up(t, nil)
	s := small()
	s.Model, s.Options = stagetest.Film, map[string]*triptychv1alpha1.OptionValue{"frames": optionToProto(stage.IntOption(3))}
	events, err := r.generate(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if got := events[0].GetAccepted().GetSpec().GetOptions(); len(got) != 2 || !proto.Equal(got["frames"], s.Options["frames"]) {
		t.Errorf("accepted %v", got)
	}
	units := map[int32]int{}
	for _, e := range events {
		if i := e.GetImageReady(); i != nil && i.GetUnits() == 3 {
			units[i.GetUnit()]++
		}
	}
	if len(units) != 3 || units[0] != 1 || units[2] != 1 {
		t.Errorf("units %v", units)
	}
}

// TestListOptions: what a model can be asked is listed, so that a client can build a form.
func TestListOptions(t *testing.T) {
	r := up(t, nil)
	res, err := r.models.ListModels(fleettest.Soon(t), &triptychv1alpha1.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range res.GetModels() {
		if m.GetName() != stagetest.Film {
			continue
		}
		task := m.GetTasks()[0]
		frames := task.GetOptions()[len(task.GetOptions())-2]
		want := &triptychv1alpha1.Option{Name: "frames", Type: triptychv1alpha1.Option_TYPE_INT, Default: optionToProto(stage.IntOption(2)), Min: 1, Max: 4}
		if task.GetName() != "generate" || len(task.GetInputs()) != 2 || !task.GetInputs()[0].GetOptional() || !proto.Equal(frames, want) {
			t.Errorf("listed as %v", task)
		}
		for _, o := range task.GetOptions() {
			if o.GetName() == "sampler" && (o.GetType() != triptychv1alpha1.Option_TYPE_TEXT || len(o.GetChoices()) != 2 || o.GetDefault().GetText() != "euler") {
				t.Errorf("the sampler is %v", o)
			}
		}
		if c := m.GetComponents(); len(c) != 5 || c[3].GetName() != stagetest.Film+"/vae.decoder" || c[3].GetStage() != "decoder" || c[3].GetWeightsBytes() != 4000 {
			t.Errorf("components %v", c)
		}
		return
	}
	t.Error("it is not listed")
}

// TestInputsOfAdapters: a model that an option names is given its input, and there is none for nobody.
func TestInputsOfAdapters(t *testing.T) {
	f := fleettest.New(t, fleettest.Trio()...)
	for _, s := range f.Services {
		s.Edit(func(i *stage.Info) {
			port := stage.Port{Name: "hint", Media: "image/*", Optional: true}
			for _, r := range recipes(i) {
				r.Inputs = append(r.Inputs, port)
				r.Turns[1].Takes = append(r.Turns[1].Takes, port)
				r.Options = append(r.Options, stage.OptionSpec{Name: "nets", Type: stage.Text, Adapter: "net", Inputs: []string{"hint"}})
			}
		})
		s.Start()
	}
	f.Known(t)
	r := over(t, f, nil)
	for accepted, change := range map[string]func(*spec){
		"one for canny, which nets names": func(s *spec) {
			s.Options = map[string]*triptychv1alpha1.OptionValue{"nets": optionToProto(stage.TextOption("canny:0.5"))}
		},
		"none, since nets names 0 models": func(s *spec) { s.Inputs = map[string][]byte{"hint": stagetest.Photo(32, 24).Data} },
	} {
		s := small()
		change(s)
		events, err := r.generate(t, s)
		refused(t, err, codes.InvalidArgument, stage.InvalidField)
		if m := info(err).GetMetadata(); m["field"] != "hint" || m["accepted"] != accepted || len(events) > 0 {
			t.Errorf("metadata %v after %d events, want %q", m, len(events), accepted)
		}
	}
}
