// Package stage has the nouns of the pipeline
//
//	prompt -> encoder -> hidden states -> denoiser -> latents -> decoder -> image
//
// and the interface that a stage has wherever it runs: in this process, in a child process or behind the network. A model tells
// as data how it is used: a Recipe of Turns, each of which holds a set of Components and takes and gives Values.
//
// The package may import engine/tensor only.
package stage

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
	i := slices.IndexFunc(Kinds(), func(k Kind) bool { return k.String() == name })
	return Kind(i + 1), i >= 0
}

// Resident is the residency side of a stage: what it is, what it would need, what it holds.
// Methods are safe for concurrent use; every error is an *Error or a context's.
type Resident interface {
	// Info tells what the stage is, which components it can load and what it holds now.
	Info(ctx context.Context) (Info, error)
	// Plan tells the bytes a turn would take, from configs and file headers alone. A limit that is too small is not
	// an error: the answer is then the least that can be.
	// ModelNotFound, ModelInvalid, SizeUnsupported, DiskFull.
	Plan(ctx context.Context, req PlanRequest) (Footprint, error)
	// Load makes a component's weights resident; it succeeds at once, and leaves them as they are, if they are resident. Warm
	// ones that are as large as this load's become resident as they are; others are dropped first, and read anew. When the
	// device has no room, warm ones stay warm.
	// progress (which may be nil) is called from one goroutine at a time, the last time with loaded == total.
	// ModelNotFound, ModelInvalid, ModelChanged while it is read, ModelDoesNotFit, DeviceBusy, RuntimeDied, StageDraining, StageOwned.
	Load(ctx context.Context, req LoadRequest, progress func(loadedBytes, totalBytes int64)) error
	// Evict takes a component's weights off the device, after running work has ended, and returns when the bytes are back with
	// the operating system, or warm. What is not resident frees 0 bytes.
	Evict(ctx context.Context, req EvictRequest) (Evicted, error)
	// Settle returns when loads of a component and work on its resident weights that were begun before have ended, and their scratch
	// is back: a call to a stage somewhere else returns before that when its context ends. What is not known has no work.
	Settle(ctx context.Context, component string) error
	// Drain refuses new work from now on and returns when running work has ended.
	Drain(ctx context.Context) error
	// Undrain takes new work again, unless the stage is shutting down: StageDraining.
	Undrain(ctx context.Context) error
}

// Stage is a whole stage.
type Stage interface {
	Resident
	// Work takes a turn of a recipe. It needs the turn's components resident: else StageEvicted. Cancelling ctx stops it
	// within one evaluation of the network. InvalidField, TensorInvalid, SizeUnsupported, NotFinite, and as Load.
	Work(ctx context.Context, req WorkRequest, observer Observer) (Result, error)
}

// Info describes a stage.
type Info struct {
	Kind    Kind
	Version string // of the serving program
	// Host and Device together name the memory that MemoryBudgetBytes is about: stages that agree in
	// both share one budget. 0 is no limit.
	Host, Device      string
	MemoryBudgetBytes int64
	Models            []Model             // by name
	Components        []Component         // by name: those of the models that this stage serves
	Resident          []ResidentComponent // by name
	UsedBytes         int64               // weights and scratch allocated now
	PeakBytes         int64               // the most ever allocated at once by the present runtime process
	Generation        uint64              // of the present runtime process: the next one's is greater; a change means that residency was lost
	Draining          bool
	// Releases is how often the present runtime process gave back memory that it kept between runs, which is not in
	// UsedBytes, and ReleasedBytes by how much it shrank then.
	Releases, ReleasedBytes int64
	// ForeignBytes and ForeignWants are of other processes on the device, and DeviceClaims is how it is shared with them,
	// see DeviceShare; empty where it is not.
	ForeignBytes int64
	ForeignWants []Want
	DeviceClaims string
	// WarmBudgetBytes is the most memory of the host that the stage keeps warm weights in; 0 keeps none. Warm ones are not in
	// UsedBytes, and are lost with the runtime process as what is resident.
	WarmBudgetBytes int64
	Warm            []ResidentComponent // by name
	// Planning is equal for stages that answer Plan alike: same threads, budget, precision, compute type and what else scratch depends on.
	Planning string
	// OverheadBytes are of the process and neither weights nor scratch, such as a GPU's context. They are in UsedBytes.
	OverheadBytes int64
	// Compute is the type of the factors that the stage multiplies, f32 or another: what it makes differs by it, and its components
	// have other identities.
	Compute string
	// Instance names the service from its start to its end, so that who reaches it at two addresses counts it once; empty if it
	// has no name.
	Instance string
}

// Pulse is a sign of life of a runtime process.
type Pulse struct {
	Running int    // loads and evaluations of networks that are under way on the device
	Moved   uint64 // another number whenever one of them has got on
}

// Model is a model as its files tell it.
type Model struct {
	Name string
	// Adapter is what it is beside models that draw: "lora", "controlnet", "ip_adapter", "upscaler", "taesd", or a file that belongs to
	// models, "embedding", "vae"; empty of one to draw with. An adapter has no recipes, unless it can be used by itself too.
	Adapter string
	Recipes []Recipe
	Problem string // why it cannot be used, without paths; empty when it can
}

// Component is one set of weights, loaded and evicted as a whole.
type Component struct {
	Name         string // "sd15/unet": that of its model and its own
	Model        string
	WeightsBytes int64 // whatever is held with the weights included
	// Edition is that of the files as they are now; its Identity is known once they have been read.
	Edition
	// Digest is equal for components that give equal results, of whatever model; empty while it is not known, or where none
	// is like this one.
	Digest  string
	Problem string // why it cannot be loaded, without paths; empty when it can
	// Warnings tell what is odd about a component that is used all the same, without paths: tensors of its files that
	// nothing reads, a variant of weights for want of others.
	Warnings []string
}

// ModelOf is the model of a component, by its name.
func ModelOf(component string) string {
	model, _, _ := strings.Cut(component, "/")
	return model
}

// Edition tells a component from what it was at other times and is elsewhere.
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

// ResidentComponent is a component held in device memory, or warm: in the host's, as large as it was while resident.
type ResidentComponent struct {
	Name         string
	WeightsBytes int64
	Stale        string // why the weights are not to be used again, without paths; empty when they can be. Work on them is StageEvicted
}

// PlanRequest is a turn, and the shape of a request.
type PlanRequest struct {
	Turn       string
	Components []string // as of a WorkRequest
	Options    Options  // see Recipe.Shape
	LimitBytes int64    // of all weights together; 0 is no limit
}

// LoadRequest is a component, and what it may take.
type LoadRequest struct {
	Component string
	// LimitBytes is the most that the weights may take, 0 is no limit. A stage that would need more keeps part of them and
	// reads the others at each use, with the same results; if it cannot, or was told what to keep, that is ModelDoesNotFit.
	LimitBytes int64
	// Generation is the Info.Generation that the load is for, 0 is any. Once another runtime process has followed, the load is
	// RuntimeDied: whoever asked for it does not know yet that all is lost, and nothing is loaded unseen.
	Generation uint64
	// Edition, which may be nil, hears what has been loaded, before the last progress.
	Edition func(Edition)
}

// EvictRequest is a component, and what becomes of its weights.
type EvictRequest struct {
	Component string
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

// Footprint is the need of a turn, in bytes.
type Footprint struct {
	Weights      []Weights // of each component, in the order of the request; held while it is resident
	ScratchBytes int64     // held while the turn is taken
	SpillBytes   int64     // of a temporary file on the stage's disk, held likewise
}

// Weights are what a component keeps of its weights, in bytes, and all of them.
type Weights struct {
	Component         string
	Bytes, WholeBytes int64 // of a load without a limit they are equal
}

// WeightsBytes are those of all components.
func (f Footprint) WeightsBytes() (sum int64) {
	for _, w := range f.Weights {
		sum += w.Bytes
	}
	return sum
}

// WholeBytes are those of all components without a limit.
func (f Footprint) WholeBytes() (sum int64) {
	for _, w := range f.Weights {
		sum += w.WholeBytes
	}
	return sum
}

// LimitWithin is what the weights may take at most where a budget holds them and the scratch: the limit of a PlanRequest
// and of the loads that follow.
func (f Footprint) LimitWithin(budgetBytes int64) int64 { return max(1, budgetBytes-f.ScratchBytes) }
