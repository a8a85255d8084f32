package stagerpc_test

import (
	"log/slog"
	"testing"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func overEncoder(t *testing.T, s stage.Encoder) stage.Encoder {
	return stagerpc.NewEncoder(stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.RegisterEncoder(r, s, quiet()) }))
}

func overDenoiser(t *testing.T, s stage.Denoiser) stage.Denoiser {
	return stagerpc.NewDenoiser(stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.RegisterDenoiser(r, s, quiet()) }))
}

func overDecoder(t *testing.T, s stage.Decoder) stage.Decoder {
	return stagerpc.NewDecoder(stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.RegisterDecoder(r, s, quiet()) }))
}

// hops opens a fake that many connections away.
func hops[S stage.Resident](n int, open func(*stagetest.Script) S, over func(*testing.T, S) S) stagetest.Subject[S] {
	return stagetest.Subject[S]{
		Open: func(t *testing.T) (S, *stagetest.Script) {
			script := &stagetest.Script{}
			script.Warm(stagetest.WarmBudget)
			s := open(script)
			for range n {
				s = over(t, s)
			}
			return s, script
		},
		Model: stagetest.Model, Broken: stagetest.Broken, TooLarge: stagetest.TooLarge, Other: stagetest.OtherModel,
	}
}

// TestContract runs the suite over one hop, and over the two of orchestrator, service and runtime.
func TestContract(t *testing.T) {
	for i, name := range []string{"OneHop", "TwoHops"} {
		n := i + 1
		t.Run(name, func(t *testing.T) {
			t.Run("Encoder", func(t *testing.T) {
				fake := func(s *stagetest.Script) stage.Encoder { return stagetest.NewEncoder(s) }
				stagetest.EncoderContract(t, hops(n, fake, overEncoder), stagetest.Prompts()...)
			})
			t.Run("Denoiser", func(t *testing.T) {
				fake := func(s *stagetest.Script) stage.Denoiser { return stagetest.NewDenoiser(s) }
				stagetest.DenoiserContract(t, hops(n, fake, overDenoiser), stagetest.DenoiseRequest())
			})
			t.Run("Decoder", func(t *testing.T) {
				fake := func(s *stagetest.Script) stage.Decoder { return stagetest.NewDecoder(s) }
				stagetest.DecoderContract(t, hops(n, fake, overDecoder), stagetest.Latent(), stage.PNG, stage.JPEG)
			})
		})
	}
}
