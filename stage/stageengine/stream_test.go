package stageengine

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/stage"
)

// streamingStages are the stages over a model, loaded, each on a device of its own, and their devices.
func streamingStages(t *testing.T, dir string, resident map[stage.Kind]int64) (*Stage, *Stage, *Stage, map[stage.Kind]*cpu.Device) {
	t.Helper()
	library, err := OpenLibrary(dir)
	if err != nil {
		t.Fatal(err)
	}
	devices := map[stage.Kind]*cpu.Device{}
	options := func(kind stage.Kind) Options {
		if devices[kind], err = cpu.New(cpu.Options{}); err != nil {
			t.Fatal(err)
		}
		return Options{Library: library, Device: devices[kind], Host: "test", Version: "test", ResidentBytes: resident}
	}
	e, d, v := newStage(stage.KindEncoder, options(stage.KindEncoder)), newStage(stage.KindDenoiser, options(stage.KindDenoiser)), newStage(stage.KindDecoder, options(stage.KindDecoder))
	model := library.Names()[0]
	stages := []*Stage{e, d, v}
	t.Cleanup(func() {
		for _, s := range stages {
			if _, err := s.Evict(context.Background(), stage.EvictRequest{Component: partOf(s, model)}); err != nil {
				t.Error(err)
			}
		}
		for kind, d := range devices {
			if used := d.Memory().UsedBytes; used != 0 {
				t.Errorf("%d bytes are left on the device of the %v", used, kind)
			}
			_ = d.Close() // it always returns nil
		}
	})
	for _, s := range stages {
		if err := s.Load(t.Context(), stage.LoadRequest{Component: partOf(s, model)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	return e, d, v, devices
}

// An image is the same to the byte whatever the stages keep, and takes the memory that Plan tells.
func TestStreamedStagesMakeTheSameImage(t *testing.T) {
	const model = "starter"
	run := goldenRun{Sampler: "euler", Prompt: "fox on a blue background", NegativePrompt: "fog", Steps: 3, GuidanceScale: 5, Width: 128, Height: 96, Seed: 7}
	var want *stage.File
	held := map[stage.Kind]int64{}
	for i, resident := range []map[stage.Kind]int64{
		nil,
		{stage.KindDenoiser: 1 << 20, stage.KindEncoder: 300_000},
		{stage.KindDenoiser: 0, stage.KindEncoder: 0, stage.KindDecoder: 0},
		{stage.KindDenoiser: 1 << 40, stage.KindDecoder: 1 << 20},
	} {
		e, d, v, devices := streamingStages(t, filepath.Join(repo, "models", model), resident)
		_, img := generate(t, e, d, v, model, run)
		if i == 0 {
			want = img
		}
		if !bytes.Equal(img.Data, want.Data) {
			t.Errorf("resident %v: another image", resident)
		}
		for _, s := range []*Stage{e, d, v} {
			info, err := s.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			batch := 2
			if info.Kind == stage.KindDecoder {
				batch = 1
			}
			f, err := footprint(t.Context(), s, model, run.Height/8, run.Width/8, batch, 0)
			if err != nil {
				t.Fatal(err)
			}
			bytes := f.WeightsBytes()
			if peak := devices[info.Kind].Memory().PeakBytes; peak != bytes+f.ScratchBytes {
				t.Errorf("resident %v: the %v took %d bytes, planned %+v", resident, info.Kind, peak, f)
			}
			if info.Components[0].WeightsBytes != bytes || info.Resident[0].WeightsBytes != bytes {
				t.Errorf("resident %v: the %v tells %+v and %+v, plans %+v", resident, info.Kind, info.Components[0], info.Resident[0], f)
			}
			limit, streamed := resident[info.Kind]
			switch {
			case i == 0:
				held[info.Kind] = bytes
			case streamed && limit < held[info.Kind] && bytes >= held[info.Kind]*3/4, !streamed && bytes != held[info.Kind]:
				t.Errorf("resident %v: the %v holds %d bytes, %d without a limit", resident, info.Kind, bytes, held[info.Kind])
			}
		}
	}
}

// The files of a streamed model that are cut while it runs end the request with what is wrong, and a new
// load of what is whole again works, be it in another file. An eviction closes them.
func TestStreamedFilesAreCut(t *testing.T) {
	const model = "tiny-sd15"
	dir := filepath.Join(t.TempDir(), model)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(repo, "testdata/golden", model))); err != nil {
		t.Fatal(err)
	}
	e, d, v, _ := streamingStages(t, dir, map[stage.Kind]int64{stage.KindDenoiser: 0})
	run := goldenRun{Sampler: "euler", Prompt: "fox", Steps: 2, GuidanceScale: 1, Width: 64, Height: 64, Seed: 1}
	_, want := generate(t, e, d, v, model, run)

	file := filepath.Join(dir, "unet/diffusion_pytorch_model.safetensors")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	states, err := encode(t.Context(), e, model, "fox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, int64(len(data)/2)); err != nil {
		t.Fatal(err)
	}
	_, err = denoise(t.Context(), d, denoising{Model: model, States: states, H: 8, W: 8, Steps: 2, Guidance: 1, Sampler: "euler"}, stage.Observer{})
	var told *stage.Error
	if !errors.As(err, &told) || told.Reason != stage.ModelInvalid || !strings.Contains(told.Metadata["file"], "unet/") || told.Metadata["tensor"] == "" || strings.Contains(told.Message, dir) {
		t.Fatalf("%v (%+v), want ModelInvalid with the file and the tensor", err, told)
	}
	// The open file stays cut when another one takes its place: it is opened anew.
	if err := errors.Join(os.WriteFile(file+".new", data, 0o600), os.Rename(file+".new", file)); err != nil {
		t.Fatal(err)
	}
	if err := d.Load(t.Context(), stage.LoadRequest{Component: partOf(d, model)}, nil); err != nil {
		t.Fatal(err)
	}
	if _, again := generate(t, e, d, v, model, run); !bytes.Equal(again.Data, want.Data) {
		t.Error("another image behind the fault")
	}

	source := d.books[partOf(d, model)].network().Files().Source()
	name := d.books[partOf(d, model)].network().Files().Manifest().Params[0].Name
	if _, err := source.Section(name); err != nil {
		t.Error(err)
	}
	if _, err := d.Evict(t.Context(), stage.EvictRequest{Component: partOf(d, model)}); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Section(name); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("behind an eviction the files give %v, want them closed", err)
	}
}

// Plans are made while the network is loaded, within ever other limits, and evicted. The race detector has the say here.
func TestPlanBesideLoads(t *testing.T) {
	_, d, _, _ := streamingStages(t, filepath.Join(repo, "models/starter"), nil)
	model := d.Library.Names()[0]
	plan := func() {
		if _, err := footprint(t.Context(), d, model, 8, 8, 2, 5<<20); err != nil {
			t.Error(err)
		}
	}
	var planning sync.WaitGroup
	ended := make(chan struct{})
	planning.Go(func() {
		for {
			select {
			case <-ended:
				return
			default:
				plan()
			}
		}
	})
	for _, limit := range []int64{5 << 20, 0, 8 << 20} {
		if _, err := d.Evict(t.Context(), stage.EvictRequest{Component: partOf(d, model)}); err != nil {
			t.Error(err)
		}
		if err := d.Load(t.Context(), stage.LoadRequest{Component: partOf(d, model), LimitBytes: limit}, nil); err != nil {
			t.Error(err)
		}
	}
	close(ended)
	planning.Wait()
}
