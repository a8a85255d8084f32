package pipeline

import (
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// Event is something that happened to a job: one of the types below.
type Event interface{ event() }

// Queued tells that the job waits for a stage, with so many before it.
type Queued struct {
	Kind     stage.Kind
	Position int
	Reason   string // why it can be had from nobody, empty if it can
}

// Lacking is the wait for a stage of which no service can be had, and why.
func Lacking(why *stage.Error) Queued {
	kind, _ := stage.ParseKind(why.Metadata["stage"])
	return Queued{Kind: kind, Reason: lacking(why)}
}

func lacking(why *stage.Error) string {
	if why == nil {
		return ""
	}
	return why.Message
}

// Loading tells that a stage's weights are being loaded for the job.
type Loading struct {
	Kind                    stage.Kind
	LoadedBytes, TotalBytes int64
}

// Progress tells that a turn has done so many of its steps: evaluations in the denoiser.
type Progress struct {
	Kind        stage.Kind
	Turn        string
	Image, Unit int
	Step, Steps int
}

// MaxPreviewBytes is how large the file of a preview may be; larger ones are left out.
const MaxPreviewBytes = 1 << 20

// Preview is an image of an unfinished latent.
type Preview struct {
	Image, Unit, Step int
	File              stage.File
}

// Image is a finished image, or one of the units that it comes in; Units is 0 of one that comes whole.
type Image struct {
	Index       int
	Unit, Units int
	Seed        uint64
	File        stage.File
}

// Last tells whether it is the last unit of the image, or all of it.
func (i Image) Last() bool { return i.Unit == max(i.Units, 1)-1 }

// Residency is a decision about memory that the job caused.
type Residency struct{ residency.Event }

// The codes of warnings, beside those of turns.
const (
	PreviewSkipped = "PREVIEW_SKIPPED"
	StageRestarted = "STAGE_RESTARTED"
	StageSilent    = "STAGE_SILENT"
	OutOfMemory    = "OUT_OF_MEMORY"
	DeviceBusy     = "DEVICE_BUSY"
	WeightsReread  = "WEIGHTS_REREAD"
)

// Warning is something the caller should know; the job goes on.
type Warning struct{ Code, Message string }

func (Queued) event()    {}
func (Loading) event()   {}
func (Progress) event()  {}
func (Preview) event()   {}
func (Image) event()     {}
func (Residency) event() {}
func (Warning) event()   {}

// Summary closes a job.
type Summary struct {
	Stages    []Usage // in pipeline order
	Total     time.Duration
	PeakBytes int64 // the most bytes reserved at once on the devices the job used, added up
}

// Usage is what one stage took for a job: the time of all its turns, and the bytes of the largest.
type Usage struct {
	Kind                       stage.Kind
	Queued, Loading, Running   time.Duration
	WeightsBytes, ScratchBytes int64
	Compute                    string // see stage.Info
}
