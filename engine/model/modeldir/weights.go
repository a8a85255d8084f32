package modeldir

import "github.com/triptych-serving/triptych/engine/weights"

// openWeights opens the weight files in the folder of a network, by the names transformers and
// diffusers give them. Errors are a weights.Error.
func openWeights(dir string) (weightFile, error) {
	set, err := weights.OpenDir(dir, "model", "diffusion_pytorch_model")
	if err != nil {
		return nil, err
	}
	return set, nil
}
