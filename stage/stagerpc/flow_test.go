package stagerpc_test

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/triptych-serving/triptych/engine/tensor"
	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// stub is a fake with another Work.
type stub struct {
	*stagetest.Fake
	work func(context.Context, stage.WorkRequest, stage.Observer) (stage.Result, error)
}

func (s stub) Work(ctx context.Context, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	return s.work(ctx, req, o)
}

func ramp(shape ...int) tensor.Tensor {
	n, _ := tensor.Shape(shape).Elems()
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(i)
	}
	return tensor.FromF32(values, shape...)
}

// file is one of many chunks.
func file(n int) *stage.File {
	f := &stage.File{Media: "image/webp", WidthPx: 77, HeightPx: 78, Data: make([]byte, n)}
	for i := range f.Data {
		f.Data[i] = byte(i ^ i>>8)
	}
	return f
}

// TestWorkSurvives sends every field with a value of its own, and values of many chunks.
func TestWorkSurvives(t *testing.T) {
	given := stage.WorkRequest{
		Turn: "t", Components: []string{"m/a", "m/b"}, Seed: math.MaxUint64, PreviewEveryNSteps: 7, CheckpointEveryNSteps: 8,
		Options: stage.Options{
			"int": stage.IntOption(math.MinInt64), "float": stage.FloatOption(6.5), "text": stage.TextOption("s"), "none": stage.TextOption(""),
			"yes": stage.BoolOption(true), "no": stage.BoolOption(false),
		},
		Values: stage.Values{
			{Name: "states", Tensor: ramp(2, 1000, 768)}, {Name: "photo", File: file(3<<20 + 5)}, {Name: "unit", Tensor: ramp(3), Unit: 1, Units: 2},
		},
		Resume: &stage.Checkpoint{Step: 9, Values: stage.Values{
			{Name: "latents", Tensor: ramp(1, 4, 300, 400)},
			{Name: "half", Tensor: tensor.Tensor{DType: tensor.F16, Shape: tensor.Shape{2}, Data: []byte("abcd")}},
		}},
	}
	result := stage.Result{
		Values:   stage.Values{{Name: "latents", Tensor: ramp(1, 4, 500, 500)}, {Name: "image", File: file(2 << 20)}},
		Warnings: []stage.Warning{{Code: "c", Message: "m"}, {Code: "d"}},
	}
	checkpoint := stage.Checkpoint{Step: 10, Values: given.Resume.Values}
	unit := stage.Value{Name: "latents", Tensor: ramp(2), Unit: 0, Units: 2}
	const kind = stage.KindDenoiser
	var received stage.WorkRequest
	d := over(t, kind, over(t, kind, stub{work: func(_ context.Context, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
		received = req
		o.Ready(11)
		o.Progress(1, 11)
		o.Preview(2, result.Values)
		o.Checkpoint(checkpoint)
		o.Unit(unit)
		o.Checkpoint(stage.Checkpoint{Step: 12})
		return result, nil
	}}))
	var events []any
	got, err := d.Work(soon(t), given, stage.Observer{
		Ready:      func(n int) { events = append(events, "ready", n) },
		Progress:   func(n, of int) { events = append(events, "progress", n, of) },
		Preview:    func(n int, v stage.Values) { events = append(events, "preview", n, v) },
		Checkpoint: func(c stage.Checkpoint) { events = append(events, c) },
		Unit:       func(v stage.Value) { events = append(events, v) },
	})
	if err != nil {
		t.Fatal(err)
	}
	expected := []any{"ready", 11, "progress", 1, 11, "preview", 2, result.Values, checkpoint, unit, stage.Checkpoint{Step: 12, Values: stage.Values{}}}
	for what, pair := range map[string][2]any{"request": {given, received}, "result": {result, got}, "events": {expected, events}} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("the %s does not survive", what)
		}
	}
}

func TestInfoSurvives(t *testing.T) {
	recipe := stagetest.Recipe(stagetest.Film)
	recipe.Options = append(recipe.Options, stage.OptionSpec{Name: "s", Type: stage.Bool, Default: stage.BoolOption(false), Problem: "p", Adapter: "lora", Tag: "t", InTexts: []string{"prompt"}, Inputs: []string{"photo"}, Aliases: map[string]stage.Alias{"a": {Choice: "b"}, "c": {Choice: "d", Others: map[string]string{"e": "f", "g": "h"}}}})
	recipe.Turns[0].Members = append(recipe.Turns[0].Members, stage.Member{Component: "unet_lora", With: "w", Option: "loras"})
	told := stage.Info{
		Kind: stage.KindDenoiser, Version: "v", Host: "h", Device: "d", MemoryBudgetBytes: 1,
		Models: []stage.Model{{Name: "m", Adapter: "upscaler", Recipes: []stage.Recipe{recipe, {Task: "upscale"}}}, {Name: "n", Problem: "p"}},
		Components: []stage.Component{
			{Name: "m/unet", Model: "m", WeightsBytes: 2, Problem: "p", Digest: "q", Edition: stage.Edition{Stamp: "r", Identity: "s"}, Warnings: []string{"s", "t"}},
			{Name: "n/unet", Model: "n"},
		},
		Resident:  []stage.ResidentComponent{{Name: "m/unet", WeightsBytes: 2, Stale: "t"}},
		UsedBytes: 9, PeakBytes: 10, Generation: 11, Draining: true, Releases: 12, ReleasedBytes: 13,
		ForeignBytes: 18, ForeignWants: []stage.Want{{Bytes: 13, Since: time.Unix(14, 15)}, {Bytes: 16, Since: time.Unix(17, 0)}}, DeviceClaims: "l",
		WarmBudgetBytes: 19, Warm: []stage.ResidentComponent{{Name: "n/unet", WeightsBytes: 20}},
		Planning: "threads=4", OverheadBytes: 21, Compute: "bf16", Instance: "one",
	}
	got, err := over(t, told.Kind, fixed{info: told}).Info(soon(t))
	if diff := cmp.Diff(told, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, field := range []any{told, told.Models[0], told.Components[0], told.Models[0].Recipes[0]} {
		for v, i := reflect.ValueOf(field), 0; i < v.NumField(); i++ {
			if v.Field(i).IsZero() && v.Type().Field(i).Name != "Problem" {
				t.Errorf("%s of %s is not tried", v.Type().Field(i).Name, v.Type())
			}
		}
	}
}

// fixed answers as it was told to.
type fixed struct {
	stage.Stage
	info      stage.Info
	footprint stage.Footprint
	plan      *stage.PlanRequest
}

func (f fixed) Info(context.Context) (stage.Info, error) { return f.info, nil }

func (f fixed) Plan(_ context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	*f.plan = req
	return f.footprint, nil
}

func TestPlanSurvives(t *testing.T) {
	want := stage.Footprint{Weights: []stage.Weights{{Component: "m/a", Bytes: 1, WholeBytes: 2}, {Component: "m/b", Bytes: 3, WholeBytes: 4}}, ScratchBytes: 5, SpillBytes: 6}
	asked := stage.PlanRequest{Turn: "t", Components: []string{"m/a", "m/b"}, Options: stage.Options{"width": stage.IntOption(7)}, LimitBytes: 8}
	var heard stage.PlanRequest
	got, err := over(t, stage.KindDecoder, fixed{footprint: want, plan: &heard}).Plan(soon(t), asked)
	if err != nil || !cmp.Equal(got, want) || !cmp.Equal(heard, asked) {
		t.Errorf("%v\n%s%s", err, cmp.Diff(want, got), cmp.Diff(asked, heard))
	}
}

// TestReaderThatStops checks that a stage is held back by a caller who does not read, and stops when
// the caller leaves.
func TestReaderThatStops(t *testing.T) {
	var previews atomic.Int64
	first, end := make(chan struct{}), make(chan error, 1)
	estimate := stage.Values{{Name: "latents", Tensor: ramp(1, 4, 256, 256)}} // 1 MiB
	conn := connect(t, stage.KindDenoiser, stub{work: func(ctx context.Context, _ stage.WorkRequest, o stage.Observer) (stage.Result, error) {
		for ctx.Err() == nil {
			o.Preview(1, estimate)
			if previews.Add(1) == 1 {
				close(first)
			}
		}
		end <- ctx.Err()
		return stage.Result{}, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	stream, err := stagepb.NewWorkServiceClient(conn).Work(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*request{openDenoise(nil), sent(chunk(0, 0, true, ramp(1, 8, 6).Data))} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for range 1 + 3 { // ready, and one preview
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	<-first
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("the stage ended with %v", err)
	}
	if n := previews.Load(); n > 64 {
		t.Errorf("%d MiB went to a caller who does not read", n)
	}
}

// TestOwnFault is a stage whose result cannot be sent: the caller is not to blame.
func TestOwnFault(t *testing.T) {
	req := stagetest.Request(stage.KindDenoiser)
	for name, v := range map[string]stage.Value{
		"nothing": {Name: "latents"}, "no name": {Tensor: ramp(1)}, "an empty file": {Name: "image", File: &stage.File{}},
		"cut off": {Name: "latents", Tensor: tensor.Tensor{DType: tensor.F32, Shape: tensor.Shape{1, 1, 1, 2}, Data: make([]byte, 4)}},
	} {
		d := over(t, stage.KindDenoiser, stub{work: func(context.Context, stage.WorkRequest, stage.Observer) (stage.Result, error) {
			return stage.Result{Values: stage.Values{v}}, nil
		}})
		if _, err := d.Work(soon(t), req, stage.Observer{}); stage.ReasonOf(err) != stage.EngineFault {
			t.Errorf("a result with %s: %v", name, err)
		}
	}
	d := over(t, stage.KindDenoiser, stub{work: func(ctx context.Context, _ stage.WorkRequest, o stage.Observer) (stage.Result, error) {
		o.Preview(1, stage.Values{{}})
		<-ctx.Done() // a bad preview stops the work
		return stage.Result{}, ctx.Err()
	}})
	req.PreviewEveryNSteps = 1
	if _, err := d.Work(soon(t), req, stage.Observer{Preview: func(int, stage.Values) {}}); stage.ReasonOf(err) != stage.EngineFault {
		t.Errorf("a bad preview: %v", err)
	}
}

// TestClientBounds is what a client refuses to send.
func TestClientBounds(t *testing.T) {
	d := over(t, stage.KindDenoiser, stagetest.New(stage.KindDenoiser, nil))
	for name, c := range map[string]struct {
		value stage.Value
		want  stage.Reason
	}{
		"a tensor":  {stage.Value{Name: "x", Tensor: tensor.Tensor{DType: tensor.F32, Shape: tensor.Shape{stagerpc.MaxTensorBytes/4 + 1}, Data: make([]byte, stagerpc.MaxTensorBytes+4)}}, stage.TensorInvalid},
		"a file":    {stage.Value{Name: "x", File: &stage.File{Data: make([]byte, stagerpc.MaxFileBytes+1)}}, stage.InvalidField},
		"a name":    {stage.Value{Name: strings.Repeat("x", stagerpc.MaxNameBytes+1), Tensor: ramp(1)}, stage.TensorInvalid},
		"integers":  {stage.Value{Name: "x", Tensor: tensor.Tensor{DType: tensor.I32, Shape: tensor.Shape{1}, Data: make([]byte, 4)}}, stage.TensorInvalid},
		"no number": {stage.Value{Name: "x", Tensor: tensor.Tensor{DType: tensor.F32, Shape: tensor.Shape{0}}}, stage.TensorInvalid},
	} {
		req := stagetest.Request(stage.KindDenoiser)
		req.Values = append(req.Values, c.value)
		if _, err := d.Work(soon(t), req, stage.Observer{}); stage.ReasonOf(err) != c.want {
			t.Errorf("%s over the bound: %v", name, err)
		}
		req = stagetest.Request(stage.KindDenoiser)
		req.Resume = &stage.Checkpoint{Step: 1, Values: stage.Values{c.value}}
		if _, err := d.Work(soon(t), req, stage.Observer{}); stage.ReasonOf(err) != c.want {
			t.Errorf("%s over the bound in a checkpoint: %v", name, err)
		}
	}
}
