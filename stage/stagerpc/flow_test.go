package stagerpc_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/triptych-serving/triptych/engine/tensor"
	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
	"google.golang.org/grpc"
)

// stubDenoiser is a fake with another Denoise.
type stubDenoiser struct {
	*stagetest.Denoiser
	denoise func(context.Context, stage.DenoiseRequest, stage.DenoiseObserver) (stage.Latent, error)
}

func (s stubDenoiser) Denoise(ctx context.Context, req stage.DenoiseRequest, o stage.DenoiseObserver) (stage.Latent, error) {
	return s.denoise(ctx, req, o)
}

func ramp(shape ...int) tensor.Tensor {
	n, _ := tensor.Shape(shape).Elems()
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(i)
	}
	return tensor.FromF32(values, shape...)
}

// TestDenoiseFieldsSurvive sends every field with a value of its own, and tensors of many chunks.
func TestDenoiseFieldsSurvive(t *testing.T) {
	sent := stage.DenoiseRequest{
		Model: "m", Conditioning: stage.Conditioning{States: ramp(2, 1000, 768)}, LatentHeight: 3, LatentWidth: 4, Steps: 5,
		GuidanceScale: 6.5, Sampler: "s", Seed: math.MaxUint64, PreviewEveryNSteps: 7, CheckpointEveryNSteps: 8,
		Resume: &stage.Checkpoint{Step: 9, Tensors: []stage.NamedTensor{
			{Name: "latents", Tensor: ramp(1, 4, 300, 400)},
			{Name: "half", Tensor: tensor.Tensor{DType: tensor.F16, Shape: tensor.Shape{2}, Data: []byte("abcd")}},
		}},
	}
	latent := stage.Latent{Tensor: ramp(1, 4, 500, 500)}
	checkpoint := stage.Checkpoint{Step: 10, Tensors: sent.Resume.Tensors}
	var received stage.DenoiseRequest
	d := overDenoiser(t, overDenoiser(t, stubDenoiser{denoise: func(_ context.Context, req stage.DenoiseRequest, o stage.DenoiseObserver) (stage.Latent, error) {
		received = req
		o.Ready(11, "chosen")
		o.Progress(1, 11)
		o.Preview(2, latent)
		o.Checkpoint(checkpoint)
		o.Checkpoint(stage.Checkpoint{Step: 12})
		return latent, nil
	}}))
	var events []any
	got, err := d.Denoise(soon(t), sent, stage.DenoiseObserver{
		Ready:      func(n int, s string) { events = append(events, "ready", n, s) },
		Progress:   func(n, of int) { events = append(events, "progress", n, of) },
		Preview:    func(n int, l stage.Latent) { events = append(events, "preview", n, l) },
		Checkpoint: func(c stage.Checkpoint) { events = append(events, c) },
	})
	if err != nil {
		t.Fatal(err)
	}
	expected := []any{"ready", 11, "chosen", "progress", 1, 11, "preview", 2, latent, checkpoint, stage.Checkpoint{Step: 12, Tensors: []stage.NamedTensor{}}}
	for what, pair := range map[string][2]any{"request": {sent, received}, "latent": {latent, got}, "events": {expected, events}} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("the %s does not survive", what)
		}
	}
}

func TestInfoSurvives(t *testing.T) {
	sent := stage.Info{
		Kind: stage.KindDenoiser, Version: "v", Host: "h", Device: "d", MemoryBudgetBytes: 1,
		Models: []stage.Component{{
			Model: "m", WeightsBytes: 2, MaxTokens: 3, ContextDim: 4, LatentChannels: 5, LatentMultiple: 6, LatentDefaultWidth: 7, LatentDefaultHeight: 9,
			Samplers: []string{"a", "b"}, DefaultSampler: "a", SamplerProblem: "s", SpatialFactor: 8, Problem: "p", Digest: "q", Edition: stage.Edition{Stamp: "r", Identity: "s"},
			Warnings: []string{"s", "t"},
		}, {Model: "n"}},
		Resident:  []stage.ResidentModel{{Model: "m", WeightsBytes: 2, Stale: "t"}},
		UsedBytes: 9, PeakBytes: 10, Generation: 11, Draining: true, Releases: 12, ReleasedBytes: 13,
		DeviceLease: "u", ForeignBytes: 18, ForeignWants: []stage.Want{{Bytes: 13, Since: time.Unix(14, 15)}, {Bytes: 16, Since: time.Unix(17, 0)}},
		WarmBudgetBytes: 19, Warm: []stage.ResidentModel{{Model: "n", WeightsBytes: 20}},
	}
	got, err := overDenoiser(t, fixedInfo{info: sent}).Info(soon(t))
	if diff := cmp.Diff(sent, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

type fixedInfo struct {
	stage.Denoiser
	info stage.Info
}

func (f fixedInfo) Info(context.Context) (stage.Info, error) { return f.info, nil }

// TestReaderThatStops checks that a stage is held back by a caller who does not read, and stops when
// the caller leaves.
func TestReaderThatStops(t *testing.T) {
	var previews atomic.Int64
	first, over := make(chan struct{}), make(chan error, 1)
	estimate := stage.Latent{Tensor: ramp(1, 4, 256, 256)} // 1 MiB
	stub := stubDenoiser{denoise: func(ctx context.Context, _ stage.DenoiseRequest, o stage.DenoiseObserver) (stage.Latent, error) {
		for ctx.Err() == nil {
			o.Preview(1, estimate)
			if previews.Add(1) == 1 {
				close(first)
			}
		}
		over <- ctx.Err()
		return stage.Latent{}, ctx.Err()
	}}
	conn := stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.RegisterDenoiser(r, stub, quiet()) })
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	stream, err := stagepb.NewDenoiserServiceClient(conn).Denoise(ctx)
	if err != nil {
		t.Fatal(err)
	}
	states := ramp(1, 8, 6)
	for _, m := range []*stagepb.DenoiseRequest{denoiseOpen(nil), denoiseChunk(chunk(0, 0, true, states.Data))} {
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
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("the stage ended with %v", err)
	}
	if n := previews.Load(); n > 64 {
		t.Errorf("%d MiB went to a caller who does not read", n)
	}
}

// TestOwnFault is a stage whose result cannot be sent: the caller is not to blame.
func TestOwnFault(t *testing.T) {
	for name, latent := range map[string]tensor.Tensor{
		"nothing": {}, "cut off": {DType: tensor.F32, Shape: tensor.Shape{1, 1, 1, 2}, Data: make([]byte, 4)},
	} {
		d := overDenoiser(t, stubDenoiser{denoise: func(context.Context, stage.DenoiseRequest, stage.DenoiseObserver) (stage.Latent, error) {
			return stage.Latent{Tensor: latent}, nil
		}})
		if _, err := d.Denoise(soon(t), stagetest.DenoiseRequest(), stage.DenoiseObserver{}); stage.ReasonOf(err) != stage.EngineFault {
			t.Errorf("a result with %s: %v", name, err)
		}
	}
	d := overDenoiser(t, stubDenoiser{denoise: func(ctx context.Context, _ stage.DenoiseRequest, o stage.DenoiseObserver) (stage.Latent, error) {
		o.Preview(1, stage.Latent{})
		<-ctx.Done() // a bad preview stops the work
		return stage.Latent{}, ctx.Err()
	}})
	req := stagetest.DenoiseRequest()
	req.PreviewEveryNSteps = 1
	if _, err := d.Denoise(soon(t), req, stage.DenoiseObserver{Preview: func(int, stage.Latent) {}}); stage.ReasonOf(err) != stage.EngineFault {
		t.Errorf("a bad preview: %v", err)
	}
}

// TestClientBounds is what a client refuses to send.
func TestClientBounds(t *testing.T) {
	d := overDenoiser(t, stagetest.NewDenoiser(nil))
	req := stagetest.DenoiseRequest()
	req.Conditioning.States = ramp(1, 1, stagerpc.MaxConditioningBytes/4+1)
	if _, err := d.Denoise(soon(t), req, stage.DenoiseObserver{}); stage.ReasonOf(err) != stage.TensorInvalid {
		t.Errorf("conditioning over the bound: %v", err)
	}
	v := overDecoder(t, stagetest.NewDecoder(nil))
	if _, err := v.EncodeImage(soon(t), stage.EncodeImageRequest{Data: make([]byte, stagerpc.MaxImageBytes+1)}); stage.ReasonOf(err) != stage.InvalidField {
		t.Errorf("an image over the bound: %v", err)
	}
}

// TestLargeImage carries an image of many messages there and back.
func TestLargeImage(t *testing.T) {
	data := make([]byte, 3<<20+5)
	for i := range data {
		data[i] = byte(i ^ i>>8)
	}
	var received []byte
	v := overDecoder(t, stubDecoder{
		decode: func(req stage.DecodeRequest) stage.Image {
			return stage.Image{Format: req.Format, WidthPx: 1, HeightPx: req.Quality, Data: data}
		},
		encode: func(req stage.EncodeImageRequest) { received = req.Data },
	})
	sent := stage.DecodeRequest{Model: "m", Latent: stage.Latent{Tensor: ramp(1, 4, 300, 300)}, Format: stage.WebP, Quality: 77}
	got, err := v.Decode(soon(t), sent)
	if err != nil || !reflect.DeepEqual(got, stage.Image{Format: stage.WebP, WidthPx: 1, HeightPx: 77, Data: data}) {
		t.Errorf("the image does not survive: %v", err)
	}
	if _, err := v.EncodeImage(soon(t), stage.EncodeImageRequest{Model: "m", Data: data}); err != nil || !bytes.Equal(received, data) {
		t.Errorf("the file does not survive: %v", err)
	}
}

type stubDecoder struct {
	stage.Decoder
	decode func(stage.DecodeRequest) stage.Image
	encode func(stage.EncodeImageRequest)
}

func (s stubDecoder) Decode(_ context.Context, req stage.DecodeRequest) (stage.Image, error) {
	return s.decode(req), nil
}

func (s stubDecoder) EncodeImage(_ context.Context, req stage.EncodeImageRequest) (stage.Latent, error) {
	s.encode(req)
	return stagetest.Latent(), nil
}
