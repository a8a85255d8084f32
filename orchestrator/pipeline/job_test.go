package pipeline_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// photo is the request with a picture to begin with.
func (q request) photo() request {
	q.inputs = append(q.inputs, stage.Value{Name: "init_image", File: stagetest.Photo(32, 24)})
	return q
}

// written is a job as it is read back from what is written down of it now.
func written(t *testing.T, from *pipeline.Job) *pipeline.Job {
	t.Helper()
	text, err := json.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	to := &pipeline.Job{}
	if err := json.Unmarshal(text, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestJobWrittenDown: a job that is written down at any moment goes on from there in another pipeline, over other services, and
// its images are the same.
func TestJobWrittenDown(t *testing.T) {
	for name, c := range map[string]struct {
		model  string
		photo  bool
		styled bool // with adapters
		kind   stage.Kind
		op     stagetest.Op
		step   int // where it is written down
		resume int // the step from which that is denoised whose checkpoint there was, 0 if there was none; -1 is not known
		encode int // how often the prompt is encoded from there; -1 is not known
	}{
		"before anything":         {stagetest.Model, false, false, stage.KindEncoder, stagetest.OpEncode, 1, 0, 1},
		"while it denoises":       {stagetest.Model, false, false, stage.KindDenoiser, stagetest.OpDenoise, 8, 5, 0},
		"while it decodes":        {stagetest.Model, false, false, stage.KindDecoder, stagetest.OpDecode, 3, -1, 0}, // meanwhile the next image is denoised
		"with a photo, encoding":  {stagetest.Model, true, false, stage.KindDecoder, stagetest.OpEncodeImage, 1, 0, -1},
		"with a photo, denoising": {stagetest.Model, true, false, stage.KindDenoiser, stagetest.OpDenoise, 7, 5, 0},
		"with adapters":           {stagetest.Model, false, true, stage.KindEncoder, stagetest.OpEncode, 2, 0, 1},
		"while adapters work":     {stagetest.Model, false, true, stage.KindDenoiser, stagetest.OpDenoise, 8, 5, 0},
		"between units":           {stagetest.Film, false, false, stage.KindDenoiser, stagetest.OpDenoise, 17, 15, 0},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r := up(t)
			q := r.of(t, c.model)
			if c.styled {
				q = r.styled(t)
			}
			q.ImageCount = 2
			if c.photo {
				q = q.photo()
			}
			record := q.job()
			gate := r.script(c.kind).Hold(c.op, c.step)
			j := r.goOn(fleettest.Soon(t), "job", q.model, record)
			entered(t, gate)
			if c.resume > 0 {
				j.events.Await(t, "the steps before", func(e pipeline.Event) bool {
					p, ok := e.(pipeline.Progress)
					return ok && p.Kind == stage.KindDenoiser && p.Step == c.step-1
				})
			}
			middle := written(t, record)
			files := map[[2]int][]byte{}
			for _, i := range only[pipeline.Image](j) {
				files[[2]int{i.Index, i.Unit}] = i.File.Data // told before
			}
			gate.Release()
			if <-j.done; j.err != nil {
				t.Fatal(j.err)
			}
			if end := written(t, record); len(end.Values) > 0 || len(end.Checkpoints) > 0 || slices.Contains(end.Done, false) || !slices.Contains(middle.Done, false) {
				t.Errorf("in the end there are %d values and %d checkpoints, done is %v", len(end.Values), len(end.Checkpoints), end.Done)
			}

			other := up(t)
			model := other.chosen(t, request{model: other.model(t, c.model), Spec: middle.Spec}).model
			again := other.goOn(fleettest.Soon(t), "again", model, middle)
			if <-again.done; again.err != nil {
				t.Fatal(again.err)
			}
			for _, i := range only[pipeline.Image](again) {
				files[[2]int{i.Index, i.Unit}] = i.File.Data
			}
			for _, i := range only[pipeline.Image](j) {
				if !bytes.Equal(i.File.Data, files[[2]int{i.Index, i.Unit}]) {
					t.Errorf("unit %d of image %d differs", i.Unit, i.Index)
				}
			}
			if len(only[pipeline.Image](again)) == 0 {
				t.Error("nothing was left to do")
			}
			resumed := 0
			for _, w := range other.Service(stage.KindDenoiser).Works("denoise") {
				if c.styled && !slices.Equal(w.Components, sets[stagetest.OpDenoise]) {
					t.Errorf("it goes on with %q", w.Components)
				}
				if w.Resume != nil {
					resumed = w.Resume.Step
				}
			}
			if n := len(other.Service(stage.KindEncoder).Works("encode")); resumed != c.resume && c.resume >= 0 || n != c.encode && c.encode >= 0 {
				t.Errorf("resumed at step %d after %d encodes", resumed, n)
			}
		})
	}
}

// TestJobOfOtherFiles: a job does not go on with other files than it was begun with.
func TestJobOfOtherFiles(t *testing.T) {
	for name, files := range map[string]stage.Edition{"the same": older, "others": newer} {
		r := edited(t)
		record := r.spec(t).job()
		gate := r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 8)
		j := r.goOn(fleettest.Soon(t), "job", r.spec(t).model, record)
		entered(t, gate)
		middle := written(t, record)
		gate.Release()
		<-j.done
		other := edited(t)
		other.change(files, stage.KindDenoiser)
		other.Service(stage.KindDenoiser).Looks(t, 2)
		again := other.goOn(fleettest.Soon(t), "again", other.spec(t).model, middle)
		if <-again.done; (stage.ReasonOf(again.err) == stage.ModelChanged) != (files == newer) || files == older && again.err != nil {
			t.Errorf("%s: ended with %v", name, again.err)
		}
	}
}

// TestJobOfAnotherRecipe: a job does not go on with a model that is used otherwise by now.
func TestJobOfAnotherRecipe(t *testing.T) {
	r := up(t)
	record := r.spec(t).job()
	record = written(t, record)
	if _, err := r.Plan(fleettest.Soon(t), r.spec(t).model, record.Spec, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Plan(fleettest.Soon(t), r.of(t, stagetest.Film).model, record.Spec, nil); stage.ReasonOf(err) != stage.ModelChanged {
		t.Errorf("planned with %v", err)
	}
}

// TestUnits: a unit is decoded while the next is denoised, and one that is told again after a loss is not decoded again.
func TestUnits(t *testing.T) {
	r := up(t)
	spec := r.of(t, stagetest.Film)
	spec.ImageCount = 2
	spec.PreviewEveryNSteps = 6
	quiet := r.good(t, spec)
	if n := len(quiet.images()); n != 4 {
		t.Fatalf("%d images, not two of two units", n)
	}
	for _, i := range only[pipeline.Image](quiet) {
		if i.Units != 2 || i.Last() != (i.Unit == 1) || i.Seed != 7+uint64(i.Index) {
			t.Errorf("told as image %d, unit %d of %d, seed %d", i.Index, i.Unit, i.Units, i.Seed)
		}
	}
	for _, w := range only[pipeline.Warning](quiet) {
		if strings.Contains(w.Message, "failed") {
			t.Errorf("warned of %+v", w)
		}
	}
	for _, p := range only[pipeline.Preview](quiet) {
		if unit := (p.Step - 1) / 12; p.Unit != unit { // of 24 evaluations
			t.Errorf("a preview after step %d of unit %d, told as of %d", p.Step, unit, p.Unit)
		}
	}
	decoded := 0
	for _, w := range r.Service(stage.KindDecoder).Works("decode") {
		if w.Values.Has("parameters") { // else of a preview
			decoded++
		}
	}
	if decoded != 4 {
		t.Errorf("%d decodes for four units", decoded)
	}

	r = up(t)
	spec.ImageCount, spec.PreviewEveryNSteps = 1, 0
	gate := r.script(stage.KindDenoiser).Hold(stagetest.OpDenoise, 16) // of 24
	r.script(stage.KindDenoiser).Fail(stagetest.OpDenoise, 17, died())
	j := r.start(fleettest.Soon(t), "job", spec)
	entered(t, gate)
	j.events.Await(t, "the first unit", func(e pipeline.Event) bool { i, ok := e.(pipeline.Image); return ok && i.Unit == 0 })
	gate.Release()
	if <-j.done; j.err != nil {
		t.Fatal(j.err)
	}
	if w := r.Service(stage.KindDenoiser).Works("denoise"); len(w) != 2 || w[1].Resume == nil || w[1].Resume.Step != 15 {
		t.Errorf("%d denoises, not the second from step 15", len(w))
	}
	if n := len(r.Service(stage.KindDecoder).Works("decode")); n != 2 {
		t.Errorf("%d decodes for two units", n)
	}
	if got := j.images(); !slices.EqualFunc(got, quiet.images()[:2], bytes.Equal) {
		t.Error("the units are not those of the first image")
	}
}

// TestOptionalTurn: a picture to begin with is encoded once, under a lease for which a drain waits, and what it takes counts.
func TestOptionalTurn(t *testing.T) {
	r := up(t)
	plain := r.good(t, r.spec(t))
	spec := r.spec(t).photo()
	spec.ImageCount = 2
	s := r.Service(stage.KindDecoder)
	if n := len(s.Works("encode_image")); n > 0 {
		t.Fatalf("%d pictures were encoded without one", n)
	}
	r.good(t, spec)
	r.idle(t)
	before := r.Used()
	gate := s.Script.Stall(stagetest.OpEncodeImage, 1)
	j := r.start(fleettest.Soon(t), "job", spec)
	entered(t, gate)
	scratch := takes(r.planned(t, spec), stagetest.OpEncodeImage).ScratchBytes
	if now := r.Used(); now < before+scratch || scratch == 0 {
		t.Errorf("%d bytes count while a picture is encoded, %d before, and it takes %d", now, before, scratch)
	}
	var settled, drained atomic.Bool
	done := make(chan error, 2)
	go func() {
		err := s.Stage().Settle(fleettest.Soon(t), stagetest.Model+"/vae.encoder")
		settled.Store(true)
		done <- err
	}()
	go func() {
		err := s.Stage().Drain(fleettest.Soon(t))
		drained.Store(true)
		done <- err
	}()
	s.Looks(t, 2)
	if settled.Load() || drained.Load() {
		t.Errorf("while a picture is encoded: settled %v, drained %v", settled.Load(), drained.Load())
	}
	gate.Release()
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Stage().Undrain(fleettest.Soon(t)); err != nil {
		t.Fatal(err)
	}
	if <-j.done; j.err != nil {
		t.Fatal(j.err)
	}
	works := s.Works("encode_image")
	if len(works) != 2 || works[1].Components[0] != stagetest.Model+"/vae.encoder" {
		t.Errorf("%d pictures were encoded for two requests", len(works))
	}
	if bytes.Equal(j.images()[0], plain.images()[0]) {
		t.Error("the picture made no difference")
	}
}

// TestSetOfComponents: a turn is given the components that its values need, held together.
func TestSetOfComponents(t *testing.T) {
	r := up(t)
	spec := r.spec(t)
	spec.inputs = stage.Values{{Name: "control", File: stagetest.Photo(8, 8)}}
	r.good(t, spec)
	want := []string{stagetest.Model + "/unet", stagetest.Model + "/controlnet"}
	if got := r.Service(stage.KindDenoiser).Works("denoise")[0].Components; !slices.Equal(got, want) {
		t.Errorf("denoised with %q, want %q", got, want)
	}
	var held []string
	for _, c := range r.Pipeline.Keeper.Snapshot().Components {
		if c.Kind == stage.KindDenoiser {
			held = append(held, c.Component)
		}
	}
	if slices.Sort(want); !slices.Equal(held, want) {
		t.Errorf("the denoiser holds %q, want %q", held, want)
	}
}

// TestComputes: a picture and the end of a request tell in which types it was computed, if any is another than float32.
func TestComputes(t *testing.T) {
	all := stage.Kinds()
	for want, kinds := range map[string][]stage.Kind{
		"Model: tiny":                                          nil,
		"Model: tiny, Compute: denoiser=bf16":                  all[1:2],
		"Model: tiny, Compute: \"encoder=bf16,denoiser=bf16\"": all[:2],
		"Model: tiny, Compute: bf16":                           all,
	} {
		r := over(fleettest.New(t, fleettest.Trio()...))
		for _, k := range all {
			r.script(k).Compute("f32")
		}
		for _, k := range kinds {
			r.script(k).Compute("bf16")
		}
		for _, s := range r.Services {
			s.Start()
		}
		j := r.good(t, r.spec(t))
		v, _ := r.Service(stage.KindDecoder).Works("decode")[0].Values.Get("parameters")
		if !strings.HasSuffix(string(v.File.Data), want) {
			t.Errorf("told %q, want %q", v.File.Data, want)
		}
		for _, u := range j.summary.Stages {
			if bf16 := slices.Contains(kinds, u.Kind); u.Compute != map[bool]string{true: "bf16", false: "f32"}[bf16] {
				t.Errorf("%q: the %v computed in %s", want, u.Kind, u.Compute)
			}
		}
	}
}

// TestParameters: what a file tells of how it was made.
func TestParameters(t *testing.T) {
	for want, c := range map[string]func(request) request{
		"a boat\nNegative prompt: fog\nSteps: 12, Sampler: euler, CFG scale: 4, Seed: 7, Size: 32x24, Model: tiny": func(q request) request { return q },
		"a boat\nSteps: 12, Sampler: euler, CFG scale: 7.3, Seed: 7, Size: 32x24, Model: tiny": func(q request) request {
			return q.with("negative_prompt", stage.TextOption("")).with("guidance_scale", stage.FloatOption(float64(float32(7.3))))
		},
		"a boat\nNegative prompt: fog\nSteps: 12, Sampler: euler, CFG scale: 4, Seed: 7, Size: 32x24, Model: tiny, Denoising strength: 0.8": request.photo,
		"": func(q request) request { q.OmitMetadata = true; return q },
	} {
		r := up(t)
		r.good(t, c(r.spec(t)))
		v, ok := r.Service(stage.KindDecoder).Works("decode")[0].Values.Get("parameters")
		if ok != (want != "") || ok && string(v.File.Data) != want {
			t.Errorf("told %+v, want %q", v.File, want)
		}
	}
	r := up(t)
	film := r.of(t, stagetest.Film)
	for want, q := range map[string]request{"Model: film": film, "Model: film, frames: 3": film.with("frames", stage.IntOption(3))} {
		before := len(r.Service(stage.KindDecoder).Works("decode"))
		r.good(t, q)
		if v, _ := r.Service(stage.KindDecoder).Works("decode")[before].Values.Get("parameters"); !strings.HasSuffix(string(v.File.Data), want) {
			t.Errorf("told %q, want %q", v.File.Data, want)
		}
	}
}
