package stageengine

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageplugin"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// One contract for a stage called directly, on a device that copies as well, over in-memory gRPC and in a child process: this
// binary started again, which is told by its environment what to be.

const (
	modelsEnv = "STAGEENGINE_TEST_MODELS"
	turnEnv   = "STAGEENGINE_TEST_TURN"
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
	turn := os.Getenv(turnEnv)
	o, err := contractOptions(os.Getenv(modelsEnv), turn, onHost)
	if err != nil {
		return err
	}
	return stageplugin.Serve(kindOf(turn), newStage(kindOf(turn), o), stageplugin.NewChildLogger(slog.LevelWarn))
}

// contractOptions open models on a device that the small ones fit on and the starter does not, and keep one of them warm.
func contractOptions(models, turn string, open func(capBytes int64) (device.Device, error)) (Options, error) {
	caps := map[string]int64{"encode": 1_700_000, "denoise": 16_000_000, "decode": 1_900_000, "encode_image": 1_250_000}
	warm := map[string]int64{"encode": 1_000_000, "denoise": 3_000_000, "decode": 500_000, "encode_image": 300_000}
	library, err := OpenLibrary(models, filepath.Join(repo, "models/starter"))
	if err != nil {
		return Options{}, err
	}
	dev, err := open(caps[turn])
	return Options{Library: library, Device: dev, Host: "test", Version: "test", WarmBytes: warm[turn]}, err
}

// onHost and onCopying open a device with room for so many bytes.
func onHost(capBytes int64) (device.Device, error) {
	return cpu.New(cpu.Options{MemoryCapBytes: capBytes})
}

func onCopying(capBytes int64) (device.Device, error) {
	const overhead = 300 << 10
	computes, err := cpu.New(cpu.Options{})
	if err != nil {
		return nil, err
	}
	return devicetest.NewCopying(computes, devicetest.CopyingOptions{CapBytes: overhead + capBytes, OverheadBytes: overhead})
}

func kindOf(turn string) stage.Kind {
	switch turn {
	case "encode":
		return stage.KindEncoder
	case "denoise":
		return stage.KindDenoiser
	}
	return stage.KindDecoder
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
	for _, file := range weightFiles {
		if err := os.Truncate(filepath.Join(dir, "broken", file), 200_000); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// transports are the ways to reach a stage.
func transports(turn, models string) map[string]func(*testing.T) stage.Stage {
	kind := kindOf(turn)
	inProcess := func(t *testing.T, open func(capBytes int64) (device.Device, error)) stage.Stage {
		o, err := contractOptions(models, turn, open)
		if err != nil {
			t.Fatal(err)
		}
		s := newStage(kind, o)
		t.Cleanup(func() {
			for _, b := range s.all() {
				if _, err := s.Evict(context.Background(), stage.EvictRequest{Component: b.component.Name}); err != nil {
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
	return map[string]func(*testing.T) stage.Stage{
		"direct":  func(t *testing.T) stage.Stage { return inProcess(t, onHost) },
		"copying": func(t *testing.T) stage.Stage { return inProcess(t, onCopying) },
		"grpc": func(t *testing.T) stage.Stage {
			s := inProcess(t, onHost)
			conn := stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.Register(r, kind, s, slog.New(slog.DiscardHandler)) })
			return stagerpc.New(conn, kind)
		},
		"child": func(t *testing.T) stage.Stage {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			child, err := stageplugin.Launch(t.Context(), stageplugin.Options{
				Kind: kind, Command: []string{self}, Env: []string{modelsEnv + "=" + models, turnEnv + "=" + turn}, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(child.Kill)
			return child.Stage()
		},
	}
}

// waves are some values of a shape.
func waves(name string, period int, shape ...int) stage.Value {
	n, _ := tensor.Shape(shape).Elems()
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(2*(i%period))/float32(period) - 1
	}
	return stage.Value{Name: name, Tensor: tensor.FromF32(v, shape...)}
}

// TestContract runs the suite on every turn of Stable Diffusion.
func TestContract(t *testing.T) {
	models := contractModels(t)
	small := stage.Options{"width": stage.IntOption(32), "height": stage.IntOption(16)}
	drawn := stage.Options{
		"width": stage.IntOption(32), "height": stage.IntOption(16), "steps": stage.IntOption(6), "guidance_scale": stage.FloatOption(2), "sampler": stage.TextOption("euler_a"),
	}
	whole := maps.Clone(drawn)
	whole["strength"] = stage.FloatOption(1)
	var picture bytes.Buffer
	grey := image.NewGray(image.Rect(0, 0, 32, 16))
	grey.SetGray(3, 5, color.Gray{Y: 200})
	if err := png.Encode(&picture, grey); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]stagetest.Subject{
		"encode": {Kind: stage.KindEncoder, Request: stage.WorkRequest{
			Turn: "encode", Components: []string{"tiny-v/text_encoder"},
			Options: stage.Options{
				"prompt": stage.TextOption("a fox"), "negative_prompt": stage.TextOption("fog"), "guidance_scale": stage.FloatOption(3), "prompt_syntax": stage.TextOption("plain"),
			},
		}},
		"encode_image": {Kind: stage.KindDecoder, Request: stage.WorkRequest{
			Turn: "encode_image", Components: []string{"tiny-v/vae.encoder"}, Options: small,
			Values: stage.Values{{Name: "init_image", File: &stage.File{Media: "image/png", Data: picture.Bytes()}}},
		}},
		"denoise": {Kind: stage.KindDenoiser, Request: stage.WorkRequest{
			Turn: "denoise", Components: []string{"tiny-v/unet"}, Options: drawn, Values: stage.Values{waves("hidden_states", 17, 2, 77, 48)}, Seed: 3,
		}},
		"draw a picture anew": {Kind: stage.KindDenoiser, Request: stage.WorkRequest{
			Turn: "denoise", Components: []string{"tiny-v/unet"}, Options: whole, Seed: 3,
			Values: stage.Values{waves("hidden_states", 17, 2, 77, 48), waves("moments", 11, 1, 16, 4, 8), waves("mask_latents", 2, 1, 1, 4, 8)},
		}},
		"decode": {Kind: stage.KindDecoder, Request: stage.WorkRequest{
			Turn: "decode", Components: []string{"tiny-v/vae.decoder"}, Options: small, Values: stage.Values{waves("latents", 13, 1, 8, 4, 8)},
		}},
	} {
		for transport, open := range transports(s.Request.Turn, models) {
			if s.Request.Values.Has("moments") && transport != "direct" {
				continue // which is the same turn
			}
			s.Open = func(t *testing.T) (stage.Stage, *stagetest.Script) { return open(t), nil }
			s.Broken, s.TooLarge, s.Other = "broken", "starter", "tiny-w"
			t.Run(name+"/"+transport, func(t *testing.T) { stagetest.Contract(t, s) })
		}
	}
}

// TestContractOfAdapters runs the suite with ControlNets in the denoiser's turn.
func TestContractOfAdapters(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(sdxlGoldens, "inputs", "edges-64x48.png"))
	if err != nil {
		t.Fatal(err)
	}
	picture := &stage.File{Media: "image/png", Data: data}
	request := stage.WorkRequest{
		Turn: "denoise", Components: []string{"tiny-sd15/unet"}, Values: stage.Values{waves("hidden_states", 17, 2, 77, 32)}, Seed: 3,
		Options: stage.Options{
			"width": stage.IntOption(32), "height": stage.IntOption(16), "steps": stage.IntOption(4), "guidance_scale": stage.FloatOption(2), "sampler": stage.TextOption("euler"),
		},
	}
	adapted := request
	adapted.Components = []string{"tiny-sd15/unet", "control-sd-b/controlnet", "control-sd-a/controlnet"}
	adapted.Options = maps.Clone(request.Options)
	adapted.Options["controlnets"] = stage.TextOption("control-sd-b,control-sd-a:0.5")
	adapted.Values = append(slices.Clone(request.Values), stage.Value{Name: "control_image", File: picture}, stage.Value{Name: "control_image_2", File: picture})
	for name, open := range map[string]func(int64) (device.Device, error){"direct": onHost, "copying": onCopying} {
		t.Run(name, func(t *testing.T) {
			stagetest.Contract(t, stagetest.Subject{
				Kind: stage.KindDenoiser, Request: request, Adapted: adapted,
				Open: func(t *testing.T) (stage.Stage, *stagetest.Script) {
					library, err := OpenLibrary(filepath.Join(sdxlGoldens, "tiny-sd15"), filepath.Join(sdxlGoldens, "control-sd-a"), filepath.Join(sdxlGoldens, "control-sd-b"))
					if err != nil {
						t.Fatal(err)
					}
					dev, err := open(64 << 20)
					if err != nil {
						t.Fatal(err)
					}
					return newStage(stage.KindDenoiser, Options{Library: library, Device: dev, Host: "test", Version: "test", WarmBytes: 16 << 20}), nil
				},
			})
		})
	}
}
