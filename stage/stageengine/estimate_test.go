package stageengine

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
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// bareCopy copies the configs of the starter model, with the headers of its weights or without.
func bareCopy(t *testing.T, headers bool) string {
	t.Helper()
	from, to := filepath.Join(repo, "models/starter"), filepath.Join(t.TempDir(), "starter")
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
		case strings.HasSuffix(name, ".safetensors") && headers:
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

func starterEstimate(t *testing.T, dir string, budget int64, o Options, req EstimateRequest) (Estimate, Options) {
	t.Helper()
	var err error
	if o.Library, err = OpenLibrary(dir); err != nil {
		t.Fatal(err)
	}
	device, err := cpu.New(cpu.Options{MemoryCapBytes: budget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() }) // it always returns nil
	o.Device, req.Model = device, "starter"
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
		options Options
		req     EstimateRequest
	}{
		"plain":  {req: EstimateRequest{Guided: true}},
		"large":  {budget: 24 << 20, req: EstimateRequest{WidthPx: 512, HeightPx: 384}},
		"small":  {budget: 12 << 20, req: EstimateRequest{Guided: true}},
		"least":  {budget: 1, req: EstimateRequest{Guided: true}},
		"int8":   {options: Options{Precision: map[stage.Kind]tensor.DType{stage.KindDenoiser: tensor.I8, stage.KindDecoder: tensor.BF16}}},
		"stream": {options: Options{ResidentBytes: map[stage.Kind]int64{stage.KindEncoder: 0, stage.KindDenoiser: 5 << 20, stage.KindDecoder: 1 << 30}}, req: EstimateRequest{Guided: true}},
	} {
		want, _ := starterEstimate(t, whole, c.budget, c.options, c.req)
		if !want.Present || !want.Runs {
			t.Fatalf("the starter model: %+v", want)
		}
		for _, headers := range []bool{true, false} {
			got, _ := starterEstimate(t, bareCopy(t, headers), c.budget, c.options, c.req)
			if got.Present || !got.Runs {
				t.Errorf("%s, headers %v: present %v, runs %v", name, headers, got.Present, got.Runs)
			}
			same := cmp.Options{cmpopts.IgnoreUnexported(Estimate{}, StageEstimate{}), cmpopts.IgnoreFields(Estimate{}, "Present"), cmpopts.IgnoreFields(NetworkEstimate{}, "Present")}
			if diff := cmp.Diff(want, got, same); diff != "" {
				t.Errorf("%s, headers %v: %s", name, headers, diff)
			}
		}
	}
}

// TestMeasureLoad: a measurement of a stage reads what it says, of that stage, and leaves nothing behind.
func TestMeasureLoad(t *testing.T) {
	e, o := starterEstimate(t, filepath.Join(repo, "models/starter"), 0, Options{Precision: map[stage.Kind]tensor.DType{stage.KindDenoiser: tensor.I8}}, EstimateRequest{})
	for i, kind := range stage.Kinds() {
		r, err := e.MeasureLoad(t.Context(), o.Device, kind, 1)
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
	if _, err := e.MeasureLoad(ctx, o.Device, stage.KindDenoiser, 1); !errors.Is(err, context.Canceled) {
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
	e, o := starterEstimate(t, filepath.Join(repo, "models/starter"), 0, Options{}, EstimateRequest{})
	const of = 2 // time enough to read the sample on a machine that has other work
	r, err := e.MeasureLoad(t.Context(), endless{o.Device}, stage.KindEncoder, of)
	if err != nil {
		t.Fatal(err)
	}
	if most := float64(r.SampleBytes) / 2 / (rateLoading.Seconds() / of); r.PackBytesPerSecond <= 0 || r.PackBytesPerSecond > most {
		t.Errorf("%+v, want at most %g packed", r, most)
	}
}
