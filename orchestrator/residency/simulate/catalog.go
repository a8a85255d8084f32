package simulate

import (
	"maps"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/stage"
)

// catalog has models by the sizes of their published weights: starter and sd15 in the form of their files
// (sd15 float16), sdxl float16 with both text encoders, pyramid (Pyramid Flow's text encoders, transformer
// and decoder) bfloat16. Scratch of starter and sd15 is what plan tells, that of the others is rounded.
// Seconds are those of an accelerator that makes an image of sd15 in 2 s: only their order matters, which
// leaves loads in the same order as computing.
func catalog() map[string]Model {
	const mib, mb = 1 << 20, 1_000_000
	return map[string]Model{
		"starter": {
			SidePx:  128,
			Encoder: Part{2 * mib, mib / 2, 0.01}, Denoiser: Part{17 * mib, 4 * mib, 0.6}, Decoder: Part{2 * mib, 6 * mib, 0.05},
		},
		"sd15": {
			SidePx:  512,
			Encoder: Part{246 * mb, 4 * mib, 0.05}, Denoiser: Part{1719 * mb, 130 * mib, 2}, Decoder: Part{99 * mb, 256 * mib, 0.3},
		},
		"sdxl": {
			SidePx:  1024,
			Encoder: Part{1636 * mb, 16 * mib, 0.1}, Denoiser: Part{5135 * mb, 500 * mib, 6}, Decoder: Part{99 * mb, 256 * mib, 0.8},
		},
		"pyramid": {
			SidePx:  512,
			Encoder: Part{9770 * mb, 64 * mib, 0.3}, Denoiser: Part{3944 * mb, 500 * mib, 5}, Decoder: Part{452 * mb, 256 * mib, 0.8},
		},
	}
}

// CatalogModel is a model of known size: starter, sd15, sdxl or pyramid, or another model of one of these
// sizes, as in sd15:anime. ModelNotFound.
func CatalogModel(name string) (Model, error) {
	size, _, _ := strings.Cut(name, ":")
	m, ok := catalog()[size]
	if !ok || len(name) > maxName {
		known := strings.Join(slices.Sorted(maps.Keys(catalog())), ", ")
		return Model{}, stage.Invalid(stage.ModelNotFound, "model", name, "a model that a line of the trace describes, or one of "+known+", as in sd15 or sd15:anime")
	}
	m.Name = name
	return m, nil
}
