package families_test

import (
	"bytes"
	"context"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/testdata/toy"
	"github.com/triptych-serving/triptych/families/testdata/toymodel"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// The toy is a family that no list has: what a family is made of is enough for all that stages do.

const (
	toyWidth = 192
	tokens   = 8
)

// toys is a folder with two models of the toy.
func toys(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i, name := range []string{"toy", "tin"} {
		if err := toymodel.Write(filepath.Join(dir, name), toyWidth, map[string]int{"text_encoder": i, "text_encoder_2": i, "denoiser": i, "control": i, "decoder": i}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// devices are those on which all has to hold.
func devices() map[string]func(t *testing.T, capBytes int64) device.Device {
	direct := func(t *testing.T, capBytes int64) device.Device {
		t.Helper()
		d, err := cpu.New(cpu.Options{MemoryCapBytes: capBytes, Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return map[string]func(*testing.T, int64) device.Device{
		"cpu": direct,
		"copying": func(t *testing.T, capBytes int64) device.Device {
			t.Helper()
			d, err := devicetest.NewCopying(direct(t, 0), devicetest.CopyingOptions{CapBytes: capBytes})
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
	}
}

// toyStage is a stage over the toy alone, which ends with the test.
func toyStage(t *testing.T, kind stage.Kind, models string, d device.Device, warmBytes int64) *stageengine.Stage {
	t.Helper()
	library, err := stageengine.OpenLibrary(models)
	if err != nil {
		t.Fatal(err)
	}
	s := stageengine.New(kind, stageengine.Options{
		Library: library, Families: []family.Family{toy.Family()}, Device: d, Host: "test", Version: "test", WarmBytes: warmBytes,
	})
	t.Cleanup(func() {
		info, err := s.Info(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, r := range append(info.Resident, info.Warm...) {
			if _, err := s.Evict(context.Background(), stage.EvictRequest{Component: r.Name}); err != nil {
				t.Error(err)
			}
		}
		if used := d.Memory().UsedBytes; used != d.OverheadBytes() {
			t.Errorf("%d bytes are left on the device", used)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func numbers(name string, shape ...int) stage.Value {
	n, _ := tensor.Shape(shape).Elems()
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i%7)/4 - 0.75
	}
	return family.Tensor(name, v, shape...)
}

// toyRequest is a turn of the toy, for frames of 24 x 16 pixels.
func toyRequest(kind stage.Kind, controlled bool) stage.WorkRequest {
	req := stage.WorkRequest{Seed: 42, Options: stage.Options{}}
	if kind != stage.KindEncoder {
		req.Options["width"], req.Options["height"] = stage.IntOption(24), stage.IntOption(16)
	}
	switch kind {
	case stage.KindEncoder:
		req.Turn, req.Components = "encode", []string{"toy/text_encoder", "toy/text_encoder_2"}
		req.Options["prompt"] = stage.TextOption("a small red boat")
	case stage.KindDenoiser:
		req.Turn, req.Components = "denoise", []string{"toy/denoiser"}
		req.Options["steps"] = stage.IntOption(4)
		req.Values = stage.Values{numbers("states", 1, tokens, 2*toyWidth)}
		if controlled {
			req.Components = append(req.Components, "toy/control")
			req.Values = append(req.Values, stage.Value{Name: "control", File: stagetest.Photo(24, 16)})
		}
	case stage.KindDecoder:
		req.Turn, req.Components = "decode", []string{"toy/decoder"}
		req.Values = stage.Values{numbers("latents", 1, 4, 6, 4)}
	}
	return req
}

// planned is what a turn takes.
func planned(t *testing.T, s stage.Stage, req stage.WorkRequest) stage.Footprint {
	t.Helper()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	recipe := info.Models[len(info.Models)-1].Recipes[0] // of toy
	turn, _ := recipe.Turn(req.Turn)
	f, err := s.Plan(t.Context(), stage.PlanRequest{Turn: req.Turn, Components: req.Components, Options: recipe.Shape(turn, req.Options)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestToyContract(t *testing.T) {
	models := toys(t)
	for name, open := range devices() {
		for _, kind := range stage.Kinds() {
			req := toyRequest(kind, false)
			weights := planned(t, toyStage(t, kind, models, open(t, 0), 0), req).WeightsBytes()
			subject := stagetest.Subject{
				Kind: kind, Request: req, Set: toyRequest(kind, true), Other: "tin",
				Open: func(t *testing.T) (stage.Stage, *stagetest.Script) {
					return toyStage(t, kind, models, open(t, 0), weights*3/2), nil
				},
			}
			if kind == stage.KindDenoiser {
				subject.Units = toyRequest(kind, true)
			}
			t.Run(name+"/"+kind.String(), func(t *testing.T) { stagetest.Contract(t, subject) })
		}
	}
}

// What a turn is planned to take is what it takes, with and without the control, whose run is there as long as that of the denoiser.
func TestToyPlan(t *testing.T) {
	models := toys(t)
	for name, open := range devices() {
		t.Run(name, func(t *testing.T) {
			for _, req := range []stage.WorkRequest{
				toyRequest(stage.KindEncoder, false), toyRequest(stage.KindDenoiser, false), toyRequest(stage.KindDenoiser, true), toyRequest(stage.KindDecoder, false),
			} {
				kind := map[string]stage.Kind{"encode": stage.KindEncoder, "denoise": stage.KindDenoiser, "decode": stage.KindDecoder}[req.Turn]
				f := planned(t, toyStage(t, kind, models, open(t, 0), 0), req)
				d := open(t, f.WeightsBytes()+f.ScratchBytes)
				s := toyStage(t, kind, models, d, 0)
				if again := planned(t, s, req); !reflect.DeepEqual(again, f) {
					t.Errorf("%s: %+v is planned with just the memory for %+v", req.Turn, again, f)
				}
				work(t, s, req)
				if peak := d.Memory().PeakBytes; peak != f.WeightsBytes()+f.ScratchBytes {
					t.Errorf("%v: a peak of %d bytes, planned %+v", req.Components, peak, f)
				}
			}
		})
	}
}

// work loads what a request needs, and does it.
func work(t *testing.T, s stage.Stage, req stage.WorkRequest) stage.Result {
	t.Helper()
	for _, name := range req.Components {
		if err := s.Load(t.Context(), stage.LoadRequest{Component: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.Work(t.Context(), req, stage.Observer{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// All that a request says matters to what is drawn.
func TestToyOptions(t *testing.T) {
	s := toyStage(t, stage.KindDenoiser, toys(t), devices()["cpu"](t, 0), 0)
	frames := func(req stage.WorkRequest) stage.Values {
		values := work(t, s, req).Values
		if n := max(2, int(req.Options["frames"].Int)); len(values) != n {
			t.Fatalf("%d frames for %v", len(values), req.Options)
		}
		return values
	}
	plain, controlled, wobbly, three := toyRequest(stage.KindDenoiser, false), toyRequest(stage.KindDenoiser, true), toyRequest(stage.KindDenoiser, false), toyRequest(stage.KindDenoiser, false)
	wobbly.Options["wobble"], three.Options["frames"] = stage.FloatOption(0.5), stage.IntOption(3)
	first := frames(plain)
	if same(first[0], first[1]) {
		t.Error("both frames are the same")
	}
	for name, other := range map[string]stage.Values{"a control": frames(controlled), "wobble": frames(wobbly)} {
		for i := range first {
			if same(first[i], other[i]) {
				t.Errorf("frame %d is the same with %s", i, name)
			}
		}
	}
	if more := frames(three); !same(first[0], more[0]) || !same(first[1], more[1]) {
		t.Error("frames differ where there are more of them")
	}
}

func same(a, b stage.Value) bool { return bytes.Equal(a.Tensor.Data, b.Tensor.Data) }

// Equal components of models are one, also where only some of a turn's are: a set has members of both models.
func TestToyShared(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"first", "second"} {
		if err := toymodel.Write(filepath.Join(dir, name), 16, map[string]int{"text_encoder_2": i}); err != nil {
			t.Fatal(err)
		}
	}
	s := toyStage(t, stage.KindEncoder, dir, devices()["cpu"](t, 0), 0)
	req := toyRequest(stage.KindEncoder, false)
	states := func(components ...string) stage.Value {
		req.Components = components
		return work(t, s, req).Values[0]
	}
	own, shared := states("second/text_encoder", "second/text_encoder_2"), states("first/text_encoder", "second/text_encoder_2")
	if other := states("first/text_encoder", "first/text_encoder_2"); !same(own, shared) || same(own, other) {
		t.Error("a set with an equal member of another model gives other states")
	}
	if _, err := s.Work(t.Context(), stage.WorkRequest{Turn: "encode", Components: []string{"first/text_encoder_2", "second/text_encoder"}}, stage.Observer{}); stage.ReasonOf(err) != stage.InvalidField {
		t.Errorf("members in each other's place: %v", err)
	}
}
