package stage

import "github.com/triptych-serving/triptych/engine/tensor"

// DenoiseRequest is one image to denoise.
type DenoiseRequest struct {
	Model string
	// Conditioning holds one prompt, or two with guidance: the negative first.
	Conditioning  Conditioning
	LatentHeight  int
	LatentWidth   int
	Steps         int
	GuidanceScale float32 // above 1 guides
	Sampler       string  // empty takes the model's own
	// Seed decides all noise: it is a pure function of the seed and the number of the draw.
	Seed                  uint64
	PreviewEveryNSteps    int         // 0 is none
	CheckpointEveryNSteps int         // 0 is none
	Resume                *Checkpoint // continue from here, nil starts
}

// DenoiseObserver hears what a denoiser does. A nil func is not called.
type DenoiseObserver struct {
	// Ready: memory is reserved and this many evaluations of the network will be made with this
	// sampler; some samplers make more of them than steps.
	Ready func(evaluations int, sampler string)
	// Progress: so many evaluations are done. The last is always told, others may be left out where they follow each
	// other fast.
	Progress func(done, evaluations int)
	// Preview: an estimate of the final latent after so many evaluations.
	Preview func(done int, estimate Latent)
	// Checkpoint: what it takes to resume.
	Checkpoint func(Checkpoint)
}

// Checkpoint is a sampler's whole state after Step evaluations: enough to resume bit for bit, on
// any replica that has the same model.
type Checkpoint struct {
	Step    int
	Tensors []NamedTensor
}

// NamedTensor is a tensor with its name on the wire.
type NamedTensor struct {
	Name string
	tensor.Tensor
}

// Latent is what a denoiser makes and only a decoder accepts: F32 [1, channels, height, width], in
// the denoiser's scale.
type Latent struct {
	tensor.Tensor
}
