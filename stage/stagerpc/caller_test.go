package stagerpc_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// named notes who calls.
type named struct {
	stage.Decoder
	callers map[string]stage.Caller
}

func (n named) Info(ctx context.Context) (stage.Info, error) {
	n.callers["info"] = stage.CallerOf(ctx)
	return n.Decoder.Info(ctx)
}

func (n named) Load(ctx context.Context, req stage.LoadRequest, progress func(int64, int64)) error {
	n.callers["load"] = stage.CallerOf(ctx)
	return n.Decoder.Load(ctx, req, progress)
}

func (n named) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	n.callers["evict"] = stage.CallerOf(ctx)
	return n.Decoder.Evict(ctx, req)
}

func (n named) Decode(ctx context.Context, req stage.DecodeRequest) (stage.Image, error) {
	n.callers["decode"] = stage.CallerOf(ctx)
	return n.Decoder.Decode(ctx, req)
}

func (n named) EncodeImage(ctx context.Context, req stage.EncodeImageRequest) (stage.Latent, error) {
	n.callers["encode image"] = stage.CallerOf(ctx)
	return n.Decoder.EncodeImage(ctx, req)
}

// namedEncoder and namedDenoiser note who wants work.
type (
	namedEncoder struct {
		stage.Encoder
		callers map[string]stage.Caller
	}
	namedDenoiser struct {
		stage.Denoiser
		callers map[string]stage.Caller
	}
)

func (n namedEncoder) Encode(ctx context.Context, req stage.EncodeRequest) (stage.Conditioning, error) {
	n.callers["encode"] = stage.CallerOf(ctx)
	return n.Encoder.Encode(ctx, req)
}

func (n namedDenoiser) Denoise(ctx context.Context, req stage.DenoiseRequest, o stage.DenoiseObserver) (stage.Latent, error) {
	n.callers["denoise"] = stage.CallerOf(ctx)
	return n.Denoiser.Denoise(ctx, req, o)
}

// TestCallerSurvives: a stage knows on whose behalf it is called, whatever the call and over both hops.
func TestCallerSurvives(t *testing.T) {
	callers := map[string]stage.Caller{}
	runtime := stagetest.Connect(t, func(r grpc.ServiceRegistrar) {
		stagerpc.RegisterDecoder(r, named{stagetest.NewDecoder(nil), callers}, quiet())
	})
	service := stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.RegisterDecoder(r, stagerpc.NewDecoder(runtime), quiet()) })
	call := func(d stage.Decoder, want stage.Want) map[string]stage.Caller {
		clear(callers)
		ctx := stage.WithCaller(soon(t), stage.Caller{Want: want})
		if _, err := d.Info(ctx); err != nil {
			t.Fatal(err)
		}
		if err := d.Load(ctx, stage.LoadRequest{Model: stagetest.Model}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Decode(ctx, stage.DecodeRequest{Model: stagetest.Model, Latent: stagetest.Latent(), Format: stage.PNG}); err != nil {
			t.Fatal(err)
		}
		_, _ = d.EncodeImage(ctx, stage.EncodeImageRequest{Model: stagetest.Model, Data: []byte("image")}) // whatever it makes of that
		if _, err := d.Evict(ctx, stage.EvictRequest{Model: stagetest.Model}); err != nil {
			t.Fatal(err)
		}
		return callers
	}
	want := stage.Want{Bytes: 7, Since: time.Unix(12, 34)}
	expected := map[string]stage.Caller{"info": {Orchestrator: "a", Want: want}}
	for _, name := range []string{"load", "decode", "encode image", "evict"} {
		expected[name] = stage.Caller{Orchestrator: "a"}
	}
	if diff := cmp.Diff(expected, call(stagerpc.NewDecoder(stagerpc.As(service, "a")), want)); diff != "" {
		t.Errorf("of an orchestrator:\n%s", diff)
	}
	for name, c := range call(stagerpc.NewDecoder(service), stage.Want{}) {
		if c != (stage.Caller{}) {
			t.Errorf("%s of somebody is by %+v", name, c)
		}
	}
	for name, c := range call(stagerpc.NewDecoder(stagerpc.As(service, strings.Repeat("a", 300))), stage.Want{Bytes: -1, Since: time.Unix(1, 0)}) {
		if c != (stage.Caller{}) {
			t.Errorf("%s of nonsense is by %+v", name, c)
		}
	}
	clear(callers)
	ctx := stage.WithCaller(soon(t), stage.Caller{Orchestrator: "b"})
	_, _ = overEncoder(t, namedEncoder{stagetest.NewEncoder(nil), callers}).Encode(ctx, stage.EncodeRequest{Model: stagetest.Model, Prompts: stagetest.Prompts()})
	_, _ = overDenoiser(t, namedDenoiser{stagetest.NewDenoiser(nil), callers}).Denoise(ctx, stagetest.DenoiseRequest(), stage.DenoiseObserver{})
	for _, name := range []string{"encode", "denoise"} {
		if callers[name].Orchestrator != "b" {
			t.Errorf("%s is by %+v", name, callers[name])
		}
	}
}
