package stagetest_test

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func subject[S stage.Resident](open func(*stagetest.Script) S) stagetest.Subject[S] {
	return stagetest.Subject[S]{
		Open: func(*testing.T) (S, *stagetest.Script) {
			script := &stagetest.Script{}
			script.Warm(stagetest.WarmBudget)
			return open(script), script
		},
		Model: stagetest.Model, Broken: stagetest.Broken, TooLarge: stagetest.TooLarge, Other: stagetest.OtherModel,
	}
}

func TestEncoder(t *testing.T) {
	stagetest.EncoderContract(t, subject(func(s *stagetest.Script) stage.Encoder { return stagetest.NewEncoder(s) }), stagetest.Prompts()...)
}

func TestDenoiser(t *testing.T) {
	stagetest.DenoiserContract(t, subject(func(s *stagetest.Script) stage.Denoiser { return stagetest.NewDenoiser(s) }), stagetest.DenoiseRequest())
}

func TestDecoder(t *testing.T) {
	stagetest.DecoderContract(t, subject(func(s *stagetest.Script) stage.Decoder { return stagetest.NewDecoder(s) }),
		stagetest.Latent(), stage.PNG, stage.JPEG)
}

// TestPipeline checks that one fake's output is the next one's input.
func TestPipeline(t *testing.T) {
	encoder, denoiser, decoder := stagetest.NewEncoder(nil), stagetest.NewDenoiser(nil), stagetest.NewDecoder(nil)
	for _, s := range []stage.Resident{encoder, denoiser, decoder} {
		if err := s.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil); err != nil {
			t.Fatal(err)
		}
	}
	c, err := encoder.Encode(t.Context(), stage.EncodeRequest{Model: stagetest.Model, Prompts: []string{"", "a small red boat"}})
	if err != nil {
		t.Fatal(err)
	}
	latent, err := denoiser.Denoise(t.Context(), stage.DenoiseRequest{
		Model: stagetest.Model, Conditioning: c, LatentHeight: 4, LatentWidth: 6, Steps: 3, GuidanceScale: 4,
	}, stage.DenoiseObserver{})
	if err != nil {
		t.Fatal(err)
	}
	image, err := decoder.Decode(t.Context(), stage.DecodeRequest{Model: stagetest.Model, Latent: latent})
	if err != nil || image.WidthPx != 24 || image.HeightPx != 16 {
		t.Fatalf("a %d x %d image, %v", image.WidthPx, image.HeightPx, err)
	}
}

func TestParseScript(t *testing.T) {
	script, err := stagetest.ParseScript("fail denoise 2 ENGINE_FAULT; hold load 1;")
	if err != nil {
		t.Fatal(err)
	}
	d := stagetest.NewDenoiser(script)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for script.Steps(stagetest.OpLoad) == 0 {
			runtime.Gosched()
		}
	}()
	if err := d.Load(ctx, stage.LoadRequest{Model: stagetest.Model}, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("the load that was held: %v", err)
	}
	if err := d.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil); err != nil {
		t.Fatal(err)
	}
	_, err = d.Denoise(t.Context(), stagetest.DenoiseRequest(), stage.DenoiseObserver{})
	if stage.ReasonOf(err) != stage.EngineFault {
		t.Fatalf("the scripted failure is %v", err)
	}
	for _, bad := range []string{"fail", "jump denoise 1", "exit denoise 1", "panic denoise x", "warm", "warm much", "warm 1 2"} {
		if _, err := stagetest.ParseScript(bad); err == nil {
			t.Errorf("ParseScript(%q) gave no error", bad)
		}
	}
}

func TestPanic(t *testing.T) {
	script := &stagetest.Script{}
	script.Panic(stagetest.OpLoad, 2)
	e := stagetest.NewEncoder(script)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = e.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil)
	}()
	if _, err := e.Info(t.Context()); err != nil {
		t.Errorf("Info after a panic: %v", err)
	}
}
