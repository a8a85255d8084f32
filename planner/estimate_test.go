package planner

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/families"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

const repo = ".."

// bareCopy copies the configs of the starter model, with the headers of its weights or without.
func bareCopy(t *testing.T, headers bool) string {
	t.Helper()
	return bare(t, filepath.Join(repo, "models/starter"), headers)
}

// bare copies the configs of a model, with the headers of its weights or without.
func bare(t *testing.T, from string, headers bool) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), filepath.Base(from))
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, from)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(path, ".safetensors") && headers:
			data = data[:8+binary.LittleEndian.Uint64(data)]
		case filepath.Base(name) != "config.json" && filepath.Base(name) != "model_index.json":
			return nil
		}
		return errors.Join(os.MkdirAll(filepath.Dir(to+name), 0o700), os.WriteFile(to+name, data, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func starterEstimate(t *testing.T, dir string, budget int64, o stageengine.Options, req EstimateRequest) (Estimate, stageengine.Options) {
	t.Helper()
	var err error
	if o.Library, err = stageengine.OpenLibrary(dir); err != nil {
		t.Fatal(err)
	}
	device, err := cpu.New(cpu.Options{MemoryCapBytes: budget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() }) // it always returns nil
	o.Device, o.Families, req.Model = device, families.All(), "starter"
	e, err := NewEstimate(t.Context(), o, req)
	if err != nil {
		t.Fatal(err)
	}
	return e, o
}

// TestEstimateOfAbsentWeights: a model whose weights are not there is planned to the byte as the stages plan it once they are.
func TestEstimateOfAbsentWeights(t *testing.T) {
	whole := filepath.Join(repo, "models/starter")
	for name, c := range map[string]struct {
		budget  int64
		options stageengine.Options
		req     EstimateRequest
	}{
		"plain":  {req: EstimateRequest{Guided: true}},
		"large":  {budget: 24 << 20, req: EstimateRequest{WidthPx: 512, HeightPx: 384}},
		"small":  {budget: 12 << 20, req: EstimateRequest{Guided: true}},
		"least":  {budget: 1, req: EstimateRequest{Guided: true}},
		"int8":   {options: stageengine.Options{Precision: map[stage.Kind]tensor.DType{stage.KindDenoiser: tensor.I8, stage.KindDecoder: tensor.BF16}}},
		"stream": {options: stageengine.Options{ResidentBytes: map[stage.Kind]int64{stage.KindEncoder: 0, stage.KindDenoiser: 5 << 20, stage.KindDecoder: 1 << 30}}, req: EstimateRequest{Guided: true}},
	} {
		want, o := starterEstimate(t, whole, c.budget, c.options, c.req)
		if !want.Present || !want.Runs {
			t.Fatalf("the starter model: %+v", want)
		}
		asServices(t, o, c.budget, c.req.Guided, want)
		for _, headers := range []bool{true, false} {
			got, _ := starterEstimate(t, bareCopy(t, headers), c.budget, c.options, c.req)
			if got.Present || !got.Runs {
				t.Errorf("%s, headers %v: present %v, runs %v", name, headers, got.Present, got.Runs)
			}
			same := cmp.Options{cmpopts.IgnoreUnexported(StageEstimate{}), cmpopts.IgnoreFields(Estimate{}, "Present"), cmpopts.IgnoreFields(NetworkEstimate{}, "Present")}
			if diff := cmp.Diff(want, got, same); diff != "" {
				t.Errorf("%s, headers %v: %s", name, headers, diff)
			}
		}
	}
}

// asServices compares an estimate with what stages plan that have the weights, within the budget's limit if there is none without.
func asServices(t *testing.T, o stageengine.Options, budget int64, guided bool, e Estimate) {
	t.Helper()
	o.Outline = false
	for i, turn := range []string{"encode", "denoise", "decode"} {
		s := stageengine.New(e.Stages[i].Kind, o)
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		recipe := info.Models[0].Recipes[0]
		options := stage.Options{"width": stage.IntOption(int64(e.WidthPx)), "height": stage.IntOption(int64(e.HeightPx)), "guidance_scale": stage.FloatOption(1)}
		if guided {
			options["guidance_scale"] = stage.FloatOption(7)
		}
		told, _ := recipe.Turn(turn)
		req := stage.PlanRequest{Turn: turn, Components: told.Components(), Options: recipe.Shape(told, options)}
		f, err := s.Plan(t.Context(), req)
		if err == nil && budget > 0 && f.WeightsBytes()+f.ScratchBytes > budget {
			req.LimitBytes = f.LimitWithin(budget)
			f, err = s.Plan(t.Context(), req)
		}
		if diff := cmp.Diff(f, e.Stages[i].Footprint); diff != "" || err != nil {
			t.Errorf("%s: %v, %s", turn, err, diff)
		}
	}
}

// TestEstimateOfAnotherDevice: what a device takes for itself is not there for a stage; what it does not tell, or cannot do, is
// left out.
func TestEstimateOfAnotherDevice(t *testing.T) {
	const budget, overhead = 16 << 20, 3 << 20
	estimate := func(o devicetest.CopyingOptions) Estimate {
		t.Helper()
		library, err := stageengine.OpenLibrary(filepath.Join(repo, "models/starter"))
		if err != nil {
			t.Fatal(err)
		}
		computes, err := cpu.New(cpu.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		d, err := devicetest.NewCopying(computes, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() }) // nothing was loaded
		e, err := NewEstimate(t.Context(), stageengine.Options{Library: library, Device: d, Families: families.All()}, EstimateRequest{Model: "starter"})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	bare := estimate(devicetest.CopyingOptions{CapBytes: budget})
	within := estimate(devicetest.CopyingOptions{CapBytes: budget + overhead, OverheadBytes: overhead})
	unstreamed := estimate(devicetest.CopyingOptions{CapBytes: budget, Unstreamed: true})
	for i, s := range bare.Stages {
		if !cmp.Equal(s.Footprint, within.Stages[i].Footprint) || s.Footprint.WeightsBytes()+s.Footprint.ScratchBytes > budget {
			t.Errorf("%v: %+v within %d bytes, %+v beside an overhead", s.Kind, s.Footprint, budget, within.Stages[i].Footprint)
		}
		if s.Convolutions != nil || s.LeastWeights >= s.MostWeights {
			t.Errorf("%v: convolutions %v, weights of %d to %d bytes", s.Kind, s.Convolutions, s.LeastWeights, s.MostWeights)
		}
		if u := unstreamed.Stages[i]; u.LeastWeights != s.MostWeights || u.StreamedBytes != 0 || u.Footprint.WeightsBytes() != s.Footprint.WholeBytes() {
			t.Errorf("%v, unstreamed: %+v", s.Kind, u)
		}
	}
	if bare.Stages[stage.KindDenoiser-1].StreamedBytes == 0 {
		t.Error("nothing is streamed within the budget")
	}
}

// TestMeasureLoad: a measurement of a stage reads what it says, of that stage, and leaves nothing behind.
func TestMeasureLoad(t *testing.T) {
	e, o := starterEstimate(t, filepath.Join(repo, "models/starter"), 0, stageengine.Options{Precision: map[stage.Kind]tensor.DType{stage.KindDenoiser: tensor.I8}}, EstimateRequest{})
	for i, kind := range stage.Kinds() {
		r, err := e.Stages[i].MeasureLoad(t.Context(), o.Device, 1)
		if err != nil {
			t.Fatal(err)
		}
		if r.ReadBytesPerSecond <= 0 || r.PackBytesPerSecond <= 0 || r.SampleBytes <= 0 || r.SampleBytes > rateSample || r.BytesPerSecond() > r.ReadBytesPerSecond {
			t.Errorf("%v: %+v", kind, r)
		}
		if stored := e.Stages[i].Networks[0].StoredBytes; r.SampleBytes > stored {
			t.Errorf("%v: %d bytes were measured of %d", kind, r.SampleBytes, stored)
		}
	}
	m := o.Device.Memory()
	if m.UsedBytes != 0 || m.PeakBytes == 0 || m.PeakBytes > rateSample {
		t.Errorf("memory %+v", m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Stages[1].MeasureLoad(ctx, o.Device, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// endless is a device whose loads come half as far as they should until they are given up.
type endless struct{ device.Device }

func (d endless) Load(ctx context.Context, m *device.Manifest, p device.LoadPlan, _ device.Source, progress func(int64)) (device.Weights, error) {
	progress(d.WeightBytes(m, p) / 2)
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestMeasureSlowLoad: a load that takes longer than there is time for is cut off, and what it loaded counts.
func TestMeasureSlowLoad(t *testing.T) {
	e, o := starterEstimate(t, filepath.Join(repo, "models/starter"), 0, stageengine.Options{}, EstimateRequest{})
	const of = 2 // time enough to read the sample on a machine that has other work
	r, err := e.Stages[0].MeasureLoad(t.Context(), endless{o.Device}, of)
	if err != nil {
		t.Fatal(err)
	}
	if most := float64(r.SampleBytes) / 2 / (rateLoading.Seconds() / of); r.PackBytesPerSecond <= 0 || r.PackBytesPerSecond > most {
		t.Errorf("%+v, want at most %g packed", r, most)
	}
}
