// Package stage has the nouns of the pipeline
//
//	Prompt -> encoder -> Conditioning -> denoiser -> Latent -> decoder -> Image
//
// and the interfaces that a stage has wherever it runs: in this process, in a child process or
// behind the network. Each arrow is one type that only the next stage accepts.
//
// The package may import engine/tensor only.
package stage

import (
	"context"
	"fmt"
)

// Kind is the position of a stage in the pipeline.
type Kind uint8

// The stages, in pipeline order.
const (
	KindEncoder Kind = iota + 1
	KindDenoiser
	KindDecoder
)

// Kinds lists the stages in pipeline order.
func Kinds() []Kind { return []Kind{KindEncoder, KindDenoiser, KindDecoder} }

// String is the name of the stage in commands, events and errors.
func (k Kind) String() string {
	switch k {
	case KindEncoder:
		return "encoder"
	case KindDenoiser:
		return "denoiser"
	case KindDecoder:
		return "decoder"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// ParseKind is the inverse of String.
func ParseKind(name string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.String() == name {
			return k, true
		}
	}
	return 0, false
}

// Resident is the residency side of a stage: what it is, what it would need, what it holds.
// Methods are safe for concurrent use; every error is an *Error or a context's.
type Resident interface {
	// Info tells what the stage is, which models it can load and what it holds now.
	Info(ctx context.Context) (Info, error)
	// Plan tells the bytes a request would take, from configs and file headers alone. A limit that is too small is not
	// an error: the answer is then the least that can be.
	// ModelNotFound, ModelInvalid, SizeUnsupported, DiskFull.
	Plan(ctx context.Context, req PlanRequest) (Footprint, error)
	// Load makes a model's weights resident; it succeeds at once, and leaves them as they are, if they are resident. Warm
	// ones that are as large as this load's become resident as they are; others are dropped first, and read anew. When the
	// device has no room, warm ones stay warm.
	// progress (which may be nil) is called from one goroutine at a time, the last time with loaded == total.
	// ModelNotFound, ModelInvalid, ModelChanged while it is read, ModelDoesNotFit, DeviceBusy, RuntimeDied, StageDraining, StageOwned.
	Load(ctx context.Context, req LoadRequest, progress func(loadedBytes, totalBytes int64)) error
	// Evict takes a model's weights off the device, after running work has ended, and returns when the bytes are back with
	// the operating system, or warm. What is not resident frees 0 bytes.
	Evict(ctx context.Context, req EvictRequest) (Evicted, error)
	// Settle returns when loads of a model and work on its resident weights that were begun before have ended, and their scratch
	// is back: a call to a stage somewhere else returns before that when its context ends. What is not known has no work.
	Settle(ctx context.Context, model string) error
	// Drain refuses new work from now on and returns when running work has ended.
	Drain(ctx context.Context) error
	// Undrain takes new work again, unless the stage is shutting down: StageDraining.
	Undrain(ctx context.Context) error
}

// Encoder turns prompts into conditioning.
type Encoder interface {
	Resident
	// Encode needs the model resident: else StageEvicted.
	Encode(ctx context.Context, req EncodeRequest) (Conditioning, error)
}

// Denoiser turns conditioning into a latent.
type Denoiser interface {
	Resident
	// Denoise runs one image's sampler and tells observer what happens, from one goroutine; a slow
	// observer slows the work. Cancelling ctx stops it within one evaluation of the network. It needs
	// the model resident: else StageEvicted.
	Denoise(ctx context.Context, req DenoiseRequest, observer DenoiseObserver) (Latent, error)
}

// Decoder turns latents into image files, and image files into latents.
type Decoder interface {
	Resident
	// Decode needs the model resident: else StageEvicted.
	Decode(ctx context.Context, req DecodeRequest) (Image, error)
	// EncodeImage gives the mean of the posterior, scaled for a denoiser. It loads what it needs
	// beside the resident decoder for the time of the call.
	EncodeImage(ctx context.Context, req EncodeImageRequest) (Latent, error)
}

// Info describes a stage.
type Info struct {
	Kind    Kind
	Version string // of the serving program
	// Host and Device together name the memory that MemoryBudgetBytes is about: stages that agree in
	// both share one budget. 0 is no limit.
	Host, Device      string
	MemoryBudgetBytes int64
	Models            []Component     // by name
	Resident          []ResidentModel // by name
	UsedBytes         int64           // weights and scratch allocated now
	PeakBytes         int64           // the most ever allocated at once by the present runtime process
	Generation        uint64          // of the present runtime process: the next one's is greater; a change means that residency was lost
	Draining          bool
	// Releases is how often the present runtime process gave back memory that it kept between runs, which is not in
	// UsedBytes, and ReleasedBytes by how much it shrank then.
	Releases, ReleasedBytes int64
	// ForeignBytes and ForeignWants are of other processes on the device, and DeviceLease is how it is shared with them,
	// see DeviceShare; empty where it is not.
	ForeignBytes int64
	ForeignWants []Want
	DeviceLease  string
	// WarmBudgetBytes is the most memory of the host that the stage keeps warm weights in; 0 keeps none. Warm ones are not in
	// UsedBytes, and are lost with the runtime process as what is resident.
	WarmBudgetBytes int64
	Warm            []ResidentModel // by name
}

// Pulse is a sign of life of a runtime process.
type Pulse struct {
	Running int    // loads and evaluations of networks that are under way on the device
	Moved   uint64 // another number whenever one of them has got on
}

// Component is one model's part in a stage. Fields of other kinds of stage are zero.
type Component struct {
	Model        string
	WeightsBytes int64 // an encoder's include room for the states of the prompts used last
	MaxTokens    int   // encoder: tokens per prompt
	ContextDim   int   // encoder and denoiser: width of a conditioning vector; they must agree
	// Denoiser and decoder: channels of a latent; they must agree.
	LatentChannels int
	LatentMultiple int // denoiser: latent sides must be multiples of it
	// Denoiser: the latents that the model was trained for.
	LatentDefaultHeight, LatentDefaultWidth int
	Samplers                                []string // denoiser: those that can be used
	DefaultSampler                          string   // denoiser: the model's own; empty if that cannot be used
	SamplerProblem                          string   // denoiser: why there is no DefaultSampler
	SpatialFactor                           int      // decoder: pixels per latent cell, in each direction
	// Edition is that of the files as they are now; its Identity is known once they have been read.
	Edition
	// Digest is equal for parts that give equal results, of whatever model; empty while it is not known, or where no part is
	// like this one.
	Digest  string
	Problem string // why the model cannot be loaded, without paths; empty when it can
	// Warnings tell what is odd about a model that is used all the same, without paths: tensors of its files that nothing
	// reads, a variant of weights for want of others.
	Warnings []string
}

// Edition tells a model's part from what it was at other times and is elsewhere.
type Edition struct {
	Stamp    string // of files and settings in one place: another one means that they were changed, be it to the same. Empty is not known
	Identity string // equal wherever settings and the bytes that were read are; empty while they have not been read whole
}

// Differs reports whether two editions of one place are known to differ.
func (e Edition) Differs(o Edition) bool {
	if e.Identity != "" && o.Identity != "" {
		return e.Identity != o.Identity
	}
	return e.Stamp != "" && o.Stamp != "" && e.Stamp != o.Stamp
}

// Short is the identity for people to compare.
func (e Edition) Short() string { return e.Identity[:min(12, len(e.Identity))] }

// ResidentModel is a model held in device memory, or warm: in the host's, as large as it was while resident.
type ResidentModel struct {
	Model        string
	WeightsBytes int64
	Stale        string // why the weights are not to be used again, without paths; empty when they can be. Work on them is StageEvicted
}

// PlanRequest is a model and the shape of a request.
type PlanRequest struct {
	Model string
	// Batch is prompts for the encoder, latents per network call for the denoiser (2 with guidance),
	// images for the decoder.
	Batch                     int
	LatentHeight, LatentWidth int   // ignored by the encoder
	LimitBytes                int64 // of the weights, as of a LoadRequest
}

// LoadRequest is a model, and what it may take.
type LoadRequest struct {
	Model string
	// LimitBytes is the most that the weights may take, 0 is no limit. A stage that would need more keeps part of them and
	// reads the others at each use, with the same results; if it cannot, or was told what to keep, that is ModelDoesNotFit.
	LimitBytes int64
	// Generation is the Info.Generation that the load is for, 0 is any. Once another runtime process has followed, the load is
	// RuntimeDied: whoever asked for it does not know yet that all is lost, and nothing is loaded unseen.
	Generation uint64
	// Edition, which may be nil, hears what has been loaded, before the last progress.
	Edition func(Edition)
}

// EvictRequest is a model, and what becomes of its weights.
type EvictRequest struct {
	Model string
	// Keep keeps the weights warm, packed in the host's memory, if Info.WarmBudgetBytes has room for them. What is warm stays
	// so with it, and is dropped without.
	Keep       bool
	Generation uint64 // as in a LoadRequest
}

// Evicted is what an eviction did, in bytes.
type Evicted struct {
	FreedBytes int64 // of the device; 0 if the model was not resident
	WarmBytes  int64 // of the model that are warm now
}

// Footprint is the need of a request, in bytes.
type Footprint struct {
	WeightsBytes int64 // held while the model is resident
	ScratchBytes int64 // held while the request runs
	WholeBytes   int64 // of the weights without a limit
	SpillBytes   int64 // of a temporary file on the stage's disk, held while the request runs
}

// LimitWithin is what the weights may take at most where a budget holds them and the scratch: the limit of a PlanRequest
// and of the LoadRequest that follows.
func (f Footprint) LimitWithin(budgetBytes int64) int64 { return max(1, budgetBytes-f.ScratchBytes) }
