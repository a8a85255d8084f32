package stageengine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// One contract for a stage called directly, over in-memory gRPC and in a child process: this binary
// started again, which is told by its environment what to be.

const (
	modelsEnv = "STAGEENGINE_TEST_MODELS"
	kindEnv   = "STAGEENGINE_TEST_KIND"
)

func TestMain(m *testing.M) {
	if stageplugin.IsChild() {
		if err := serveChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serveChild() error {
	log := stageplugin.NewChildLogger(slog.LevelWarn)
	kind, _ := stage.ParseKind(os.Getenv(kindEnv))
	o, err := contractOptions(os.Getenv(modelsEnv), kind)
	if err != nil {
		return err
	}
	switch kind {
	case stage.KindEncoder:
		return stageplugin.ServeEncoder(NewEncoder(o), log)
	case stage.KindDenoiser:
		return stageplugin.ServeDenoiser(NewDenoiser(o), log)
	}
	return stageplugin.ServeDecoder(NewDecoder(o), log)
}

// contractOptions open models on a device that the small ones fit on and the starter does not, and keep one of them warm.
func contractOptions(models string, kind stage.Kind) (Options, error) {
	caps := map[stage.Kind]int64{stage.KindEncoder: 1_700_000, stage.KindDenoiser: 16_000_000, stage.KindDecoder: 1_900_000}
	warm := map[stage.Kind]int64{stage.KindEncoder: 1_000_000, stage.KindDenoiser: 3_000_000, stage.KindDecoder: 500_000}
	library, err := OpenLibrary(models, filepath.Join(repo, "models/starter"))
	if err != nil {
		return Options{}, err
	}
	device, err := cpu.New(cpu.Options{MemoryCapBytes: caps[kind]})
	return Options{Library: library, Device: device, Host: "test", Version: "test", WarmBytes: warm[kind]}, err
}

// contractModels makes a folder with two models that work and one whose weights are cut.
func contractModels(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"tiny-v", "tiny-w", "broken"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(repo, "testdata/golden/tiny-v"))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"} {
		if err := os.Truncate(filepath.Join(dir, "broken", file), 200_000); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// transports gives the ways to reach a stage.
func transports[S stage.Resident](kind stage.Kind, direct func(Options) S, register func(grpc.ServiceRegistrar, S), client func(grpc.ClientConnInterface) S) map[string]func(*testing.T, string) S {
	inProcess := func(t *testing.T, models string) S {
		o, err := contractOptions(models, kind)
		if err != nil {
			t.Fatal(err)
		}
		s := direct(o)
		t.Cleanup(func() {
			for _, name := range o.Library.Names() {
				if _, err := s.Evict(context.Background(), stage.EvictRequest{Model: name}); err != nil {
					t.Error(err)
				}
			}
			if m := o.Device.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != 0 {
				t.Errorf("memory in the end: %+v", m)
			}
			if err := o.Device.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	return map[string]func(*testing.T, string) S{
		"direct": inProcess,
		"grpc": func(t *testing.T, models string) S {
			s := inProcess(t, models)
			return client(stagetest.Connect(t, func(r grpc.ServiceRegistrar) { register(r, s) }))
		},
		"child": func(t *testing.T, models string) S {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			child, err := stageplugin.Launch(t.Context(), stageplugin.Options{
				Kind: kind, Command: []string{self}, Env: []string{modelsEnv + "=" + models, kindEnv + "=" + kind.String()}, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(child.Kill)
			return child.Stage().(S)
		},
	}
}

func subject[S stage.Resident](open func(*testing.T, string) S, models string) stagetest.Subject[S] {
	return stagetest.Subject[S]{
		Open:  func(t *testing.T) (S, *stagetest.Script) { return open(t, models), nil },
		Model: "tiny-v", Broken: "broken", TooLarge: "starter", Other: "tiny-w",
	}
}

func TestEncoderContract(t *testing.T) {
	models := contractModels(t)
	for name, open := range transports(stage.KindEncoder, func(o Options) stage.Encoder { return NewEncoder(o) },
		func(r grpc.ServiceRegistrar, e stage.Encoder) {
			stagerpc.RegisterEncoder(r, e, slog.New(slog.DiscardHandler))
		},
		stagerpc.NewEncoder) {
		t.Run(name, func(t *testing.T) { stagetest.EncoderContract(t, subject(open, models), stagetest.Prompts()...) })
	}
}

func TestDenoiserContract(t *testing.T) {
	models := contractModels(t)
	const tokens, width = 77, 48
	states := make([]float32, 2*tokens*width)
	for i := range states {
		states[i] = float32(i%17)/8 - 1
	}
	request := stage.DenoiseRequest{
		Model: "tiny-v", Conditioning: stage.Conditioning{States: tensor.FromF32(states, 2, tokens, width)},
		LatentHeight: 4, LatentWidth: 8, Steps: 6, GuidanceScale: 2, Sampler: "euler_a", Seed: 3,
	}
	for name, open := range transports(stage.KindDenoiser, func(o Options) stage.Denoiser { return NewDenoiser(o) },
		func(r grpc.ServiceRegistrar, d stage.Denoiser) {
			stagerpc.RegisterDenoiser(r, d, slog.New(slog.DiscardHandler))
		},
		stagerpc.NewDenoiser) {
		t.Run(name, func(t *testing.T) { stagetest.DenoiserContract(t, subject(open, models), request) })
	}
}

func TestDecoderContract(t *testing.T) {
	models := contractModels(t)
	z := make([]float32, 8*4*6)
	for i := range z {
		z[i] = float32(i%13)/6 - 1
	}
	latent := stage.Latent{Tensor: tensor.FromF32(z, 1, 8, 4, 6)}
	for name, open := range transports(stage.KindDecoder, func(o Options) stage.Decoder { return NewDecoder(o) },
		func(r grpc.ServiceRegistrar, d stage.Decoder) {
			stagerpc.RegisterDecoder(r, d, slog.New(slog.DiscardHandler))
		},
		stagerpc.NewDecoder) {
		t.Run(name, func(t *testing.T) {
			stagetest.DecoderContract(t, subject(open, models), latent, stage.PNG, stage.JPEG, stage.WebP)
		})
	}
}
