package stagetest

import (
	"bytes"
	"cmp"
	"image"
	_ "image/jpeg" // image.DecodeConfig reads what decoders make
	_ "image/png"  // likewise
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// with is the request with another option.
func with(req stage.WorkRequest, name string, v stage.Option) stage.WorkRequest {
	if req.Options = maps.Clone(req.Options); req.Options == nil {
		req.Options = stage.Options{}
	}
	req.Options[name] = v
	return req
}

// replaced is the request with other values for one.
func replaced(req stage.WorkRequest, name string, values ...stage.Value) stage.WorkRequest {
	req.Values = slices.DeleteFunc(slices.Clone(req.Values), func(v stage.Value) bool { return v.Name == name })
	req.Values = append(req.Values, values...)
	return req
}

// zeros is a value of a shape.
func zeros(name string, shape ...int) stage.Value {
	n, _ := tensor.Shape(shape).Elems()
	return stage.Value{Name: name, Tensor: tensor.FromF32(make([]float32, n), shape...)}
}

// gives checks that values are those that a turn says it gives.
func gives(t *testing.T, turn stage.Turn, values stage.Values) {
	t.Helper()
	if err := stage.Check(turn.Gives, values); err != nil {
		t.Errorf("what the turn gives is not what it says: %v", err)
	}
}

// testGives: a turn gives what its ports say, and leaves what it takes as it was.
func (c contract) testGives(t *testing.T) {
	s, _ := c.loaded(t)
	_, turn := c.turn(t, s)
	req, before := c.Request, stage.Values{}
	for _, v := range req.Values {
		if v.Tensor.Data = bytes.Clone(v.Tensor.Data); v.File != nil {
			file := *v.File
			file.Data = bytes.Clone(file.Data)
			v.File = &file
		}
		before = append(before, v)
	}
	var d diary
	result, err := s.Work(patient(t), req, d.observer())
	if err != nil {
		t.Fatal(err)
	}
	gives(t, turn, result.Values)
	if len(d.events) > 0 {
		d.check(t, 0)
	}
	same(t, "values before and after the work", before, append(stage.Values{}, req.Values...))
	for _, v := range result.Values {
		if f := v.File; f != nil {
			wantImage(t, *f)
		}
	}
}

// wantImage checks that a file is what it says, as far as its format can be read here.
func wantImage(t *testing.T, f stage.File) {
	t.Helper()
	if f.Media == "image/"+stage.WebP {
		if !bytes.HasPrefix(f.Data, []byte("RIFF")) || !bytes.Contains(f.Data[:min(len(f.Data), 16)], []byte("WEBP")) {
			t.Errorf("this is no WebP file")
		}
		return
	}
	config, name, err := image.DecodeConfig(bytes.NewReader(f.Data))
	if err != nil || "image/"+name != f.Media || config.Width != f.WidthPx || config.Height != f.HeightPx || f.WidthPx == 0 {
		t.Errorf("the file is a %q of %d x %d pixels (%v), told was %s of %d x %d", name, config.Width, config.Height, err, f.Media, f.WidthPx, f.HeightPx)
	}
}

// testDefaults: what a request does not say is the default.
func (c contract) testDefaults(t *testing.T) {
	s, _ := c.loaded(t)
	recipe, turn := c.turn(t, s)
	for _, name := range turn.Options {
		spec, _ := recipe.Option(name)
		if _, said := c.Request.Options[name]; said || spec.Default == (stage.Option{}) {
			continue
		}
		silent := works(t, s, c.Request)
		said := works(t, s, with(c.Request, name, spec.Default))
		same(t, "results with the default of "+name+" and without", said, silent)
	}
}

// testUnknown: what a turn does not name is refused.
func (c contract) testUnknown(t *testing.T) {
	s, _ := c.loaded(t)
	_, turn := c.turn(t, s)
	for name, change := range map[string]func(*stage.WorkRequest){
		"turn":          func(r *stage.WorkRequest) { r.Turn = nobody },
		"no turn":       func(r *stage.WorkRequest) { r.Turn = "" },
		"no components": func(r *stage.WorkRequest) { r.Components = nil },
		"component": func(r *stage.WorkRequest) {
			r.Components = append(slices.Clone(r.Components), stage.ModelOf(c.name())+"/"+nobody)
		},
		"option": func(r *stage.WorkRequest) { *r = with(*r, nobody, stage.IntOption(1)) },
		"value":  func(r *stage.WorkRequest) { *r = replaced(*r, nobody, zeros(nobody, 1)) },
		"file":   func(r *stage.WorkRequest) { *r = replaced(*r, nobody, stage.Value{Name: nobody, File: Photo(1, 1)}) },
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			req := c.Request
			change(&req)
			_, err := s.Work(patient(t), req, stage.Observer{})
			reasons := []stage.Reason{stage.InvalidField}
			if name == "component" {
				reasons = append(reasons, stage.ModelNotFound)
			}
			if e := want(t, "Work", err, reasons...); name == "option" && e.Metadata["field"] != nobody {
				t.Errorf("the error does not name the %s: %v", name, e.Metadata)
			}
		})
	}
	for _, other := range info(t, s).Components {
		if name := c.name(); other.Model == stage.ModelOf(name) && !slices.Contains(turn.Components(), other.Name) {
			load(t, s, other.Name)
			for _, components := range [][]string{{other.Name}, {name, other.Name}} {
				req := c.Request
				req.Components = components
				refuses(t, s, req, "Work with another turn's "+other.Name, stage.InvalidField)
			}
		}
	}
	if values := c.Request.Values; len(values) > 0 {
		refuses(t, s, replaced(c.Request, nobody, values[0]), "Work with a value twice", stage.InvalidField)
	}
	if turn.Kind != c.Kind {
		t.Errorf("the %v takes a turn of the %v", c.Kind, turn.Kind)
	}
}

// testOptions: what an option's spec does not accept is refused, for the reason that it says.
func (c contract) testOptions(t *testing.T) {
	s, _ := c.loaded(t)
	recipe, turn := c.turn(t, s)
	for _, name := range turn.Options {
		spec, _ := recipe.Option(name)
		bad := []stage.Option{stage.BoolOption(true)}
		bounded := spec.Min != 0 || spec.Max != 0
		switch spec.Type {
		case stage.Bool:
			bad[0] = stage.IntOption(1)
		case stage.Int:
			if bounded {
				bad = append(bad, stage.IntOption(int64(spec.Min)-1), stage.IntOption(int64(spec.Max)+1), stage.IntOption(1<<40), stage.IntOption(-1<<40))
			}
			if spec.Multiple > 1 {
				bad = append(bad, stage.IntOption(c.Request.Options[name].Int+1))
			}
		case stage.Float:
			bad = append(bad, stage.FloatOption(math.NaN()), stage.FloatOption(math.Inf(1)))
			if bounded {
				bad = append(bad, stage.FloatOption(math.Nextafter(spec.Min, math.Inf(-1))), stage.FloatOption(spec.Max+1))
			}
		case stage.Text:
			bad = append(bad, stage.TextOption("\xff"), stage.TextOption("a\x00"))
			if len(spec.Choices) > 0 {
				bad = append(bad, stage.TextOption(nobody), stage.TextOption(""))
			} else if bounded {
				bad = append(bad, stage.TextOption(strings.Repeat("a", int(spec.Max)+1)))
			}
		}
		for _, v := range bad {
			reasons := []stage.Reason{cmp.Or(spec.Refused, stage.InvalidField)}
			if v.Text == "\xff" { // that is no text on the wire
				reasons = append(reasons, stage.InvalidField)
			}
			e := refuses(t, s, with(c.Request, name, v), "Work with "+name+" = "+stage.Excerpt(v.String(), 20), reasons...)
			if v.Text == nobody && !strings.Contains(e.Metadata["accepted"], spec.Choices[0]) {
				t.Errorf("metadata accepted = %q does not list %q", e.Metadata["accepted"], spec.Choices[0])
			}
		}
	}
	for _, n := range []stage.WorkRequest{{PreviewEveryNSteps: -1}, {CheckpointEveryNSteps: -1}} {
		req := c.Request
		req.PreviewEveryNSteps, req.CheckpointEveryNSteps = n.PreviewEveryNSteps, n.CheckpointEveryNSteps
		if _, err := s.Work(patient(t), req, (&diary{}).observer()); c.Kind == stage.KindDenoiser {
			want(t, "Work with previews or checkpoints at every -1 steps", err, stage.InvalidField)
		}
	}
}

// testValues: a value that is missing, or not as the turn's port says, is refused.
func (c contract) testValues(t *testing.T) {
	s, _ := c.loaded(t)
	_, turn := c.turn(t, s)
	refused := func(what, port string, values ...stage.Value) {
		t.Helper()
		refuses(t, s, replaced(c.Request, port, values...), "Work with "+port+" that is "+what, stage.InvalidField, stage.TensorInvalid, stage.SizeUnsupported)
	}
	for _, p := range turn.Takes {
		v, ok := c.Request.Values.Get(p.Name)
		if !p.Optional {
			refused("missing", p.Name)
		}
		switch {
		case !ok:
		case p.Media != "":
			for _, data := range []string{"", "not an image", "\x89PNG\r\n\x1a\n"} {
				refused("damaged", p.Name, stage.Value{Name: p.Name, File: &stage.File{Media: v.File.Media, Data: []byte(data)}})
			}
			refused("of another type", p.Name, stage.Value{Name: p.Name, File: &stage.File{Media: "audio/ogg", Data: v.File.Data}})
			refused("a tensor", p.Name, zeros(p.Name, 1))
		default:
			shape := v.Tensor.Shape
			refused("a file", p.Name, stage.Value{Name: p.Name, File: Photo(8, 8)})
			refused("empty", p.Name, stage.Value{Name: p.Name})
			refused("flat", p.Name, zeros(p.Name, shape[1:]...))
			refused("deep", p.Name, zeros(p.Name, append([]int{1}, shape...)...))
			for i, dim := range p.Shape {
				other := slices.Clone(shape)
				other[i] = 0
				refused("without extent", p.Name, zeros(p.Name, other...))
				if _, err := strconv.Atoi(dim); err == nil || dim == "batch" {
					other[i] = shape[i] + 1
					refused("larger", p.Name, zeros(p.Name, other...))
				}
				if dim == "batch" && shape[i] > 1 { // one prompt, with guidance
					other[i] = 1
					refused("smaller", p.Name, zeros(p.Name, other...))
				}
			}
			cut, odd := v, v
			cut.Tensor.Data = cut.Tensor.Data[:len(cut.Tensor.Data)-4]
			odd.Tensor.DType = tensor.I32
			refused("cut off", p.Name, cut)
			refused("of integers", p.Name, odd)
		}
	}
}

// testPrompts: texts matter, and what of them is left out is told.
func (c contract) testPrompts(t *testing.T) {
	s, _ := c.loaded(t)
	recipe, turn := c.turn(t, s)
	texts := 0
	for _, name := range turn.Options {
		spec, _ := recipe.Option(name)
		if spec.Type != stage.Text || spec.Tokens == 0 {
			continue
		}
		texts++
		short := works(t, s, with(c.Request, name, stage.TextOption("word")))
		long := works(t, s, with(c.Request, name, stage.TextOption(strings.Repeat("word ", spec.Tokens+3))))
		if len(short.Warnings) > 0 || len(long.Warnings) != 1 || long.Warnings[0].Code != "PROMPT_TRUNCATED" || !strings.HasPrefix(long.Warnings[0].Message, name+": ") {
			t.Errorf("warnings of a short and a long %s: %v and %v", name, short.Warnings, long.Warnings)
		}
		if bytes.Equal(short.Values[0].Tensor.Data, long.Values[0].Tensor.Data) {
			t.Errorf("different texts of %s give the same values", name)
		}
	}
	if texts == 0 {
		t.Errorf("turn %q reads no text of so many tokens", turn.Name)
	}
}

// testFormats: every format is made, and read by the turn that takes an image.
func (c contract) testFormats(t *testing.T) {
	s, _ := c.loaded(t)
	recipe, turn := c.turn(t, s)
	spec, ok := recipe.Option("format")
	if !ok || !slices.Contains(turn.Options, spec.Name) {
		t.Skip("the turn makes no files")
	}
	var reader stage.Turn
	for _, r := range recipe.Turns {
		if r.Kind == c.Kind && len(r.Takes) > 0 && strings.HasPrefix(r.Takes[0].Media, "image/") {
			reader = r
		}
	}
	back := stage.WorkRequest{Turn: reader.Name, Components: reader.Components(), Options: c.Request.Options.Of(reader.Options)}
	load(t, s, back.Components...)
	for _, format := range spec.Choices {
		for _, quality := range []int64{1, 100} {
			got := works(t, s, with(with(c.Request, "format", stage.TextOption(format)), "quality", stage.IntOption(quality)))
			f := got.Values[0].File
			if f.Media != "image/"+format {
				t.Errorf("a file in %s is %s", format, f.Media)
			}
			wantImage(t, *f)
			if reader.Name == "" {
				continue
			}
			latents, err := s.Work(patient(t), replaced(back, "", stage.Value{Name: reader.Takes[0].Name, File: f}), stage.Observer{})
			if format == stage.WebP && err != nil { // making a format does not promise to read it
				want(t, "Work on WebP", err, stage.InvalidField)
				continue
			}
			if err != nil {
				t.Fatalf("%s of %s: %v", reader.Name, format, err)
			}
			gives(t, reader, latents.Values)
		}
	}
}

// testParameters: a PNG file carries them.
func (c contract) testParameters(t *testing.T) {
	s, _ := c.loaded(t)
	_, turn := c.turn(t, s)
	if !slices.ContainsFunc(turn.Takes, func(p stage.Port) bool { return p.Name == "parameters" }) {
		t.Skip("the turn takes none")
	}
	text := "a small red boat\nSteps: 5"
	got := works(t, s, replaced(c.Request, "", stage.Value{Name: "parameters", File: &stage.File{Media: "text/plain", Data: []byte(text)}}))
	data := got.Values[0].File.Data
	if !bytes.Contains(data, []byte("parameters")) || !bytes.Contains(data, []byte(text)) {
		t.Error("the PNG file lacks the parameters")
	}
	if _, _, err := image.Decode(bytes.NewReader(data)); err != nil {
		t.Errorf("the PNG file with parameters: %v", err)
	}
}
