package stageengine

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// stepAllocations is how much more a denoising of more steps may allocate, for each of them: what the
// sampler's history and the new latents are made in, and what the observer is told. The network itself allocates
// nothing (TestExecuteAllocates of engine/device/cpu).
const stepAllocations = 8

// A step of the denoiser leaves the garbage collector next to nothing to do. The difference of two lengths
// takes out what is made once for an image.
func TestDenoiserStepAllocates(t *testing.T) {
	const model = "tiny-sd15"
	encoder, denoiser, _ := open(t, filepath.Join(repo, "testdata/golden", model))
	for _, s := range []*Stage{encoder, denoiser} {
		if err := s.Load(t.Context(), stage.LoadRequest{Component: partOf(s, model)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	states, err := encode(t.Context(), encoder, model, "", "fox")
	if err != nil {
		t.Fatal(err)
	}
	const side, few, many = 8, 3, 13
	allocated := func(steps int) (objects, bytes uint64) {
		run := func() {
			_, err := denoise(t.Context(), denoiser, denoising{
				Model: model, States: states, H: side, W: side,
				Steps: steps, Guidance: 5, Sampler: "ddim", Seed: 1,
			}, stage.Observer{Progress: func(int, int) {}})
			if err != nil {
				t.Fatal(err)
			}
		}
		run()
		objects, bytes = ^uint64(0), ^uint64(0)
		for range 3 { // of which the least is free of what the runtime does beside it
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			run()
			runtime.ReadMemStats(&after)
			objects, bytes = min(objects, after.Mallocs-before.Mallocs), min(bytes, after.TotalAlloc-before.TotalAlloc)
		}
		return objects, bytes
	}
	fewObjects, fewBytes := allocated(few)
	manyObjects, manyBytes := allocated(many)
	perStep := (float64(manyObjects) - float64(fewObjects)) / (many - few)
	bytesPerStep := (float64(manyBytes) - float64(fewBytes)) / (many - few)
	t.Logf("%.1f objects and %.0f bytes for each step", perStep, bytesPerStep)
	latents := 4.0 * side * side * 4 // channels
	if perStep > stepAllocations || bytesPerStep > 4*latents {
		t.Errorf("a step allocates %.1f objects of %.0f bytes, allowed %d of %.0f", perStep, bytesPerStep, stepAllocations, 4*latents)
	}
}
