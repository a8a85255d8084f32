// Package pipeline runs one request:
//
//	Prompt -> encoder -> Conditioning -> denoiser -> Latent -> decoder -> Image
//
// It takes a lease for each stage, keeps every finished intermediate, and starts a stage again from
// there when the stage is lost.
//
// The package may import stage, orchestrator/residency and orchestrator/fleet.
package pipeline

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// Pipeline is what jobs run on.
type Pipeline struct {
	Fleet  *fleet.Fleet
	Keeper *residency.Keeper
	// Patience is how long a job waits for a stage of which no service that has its model answers,
	// within its deadline.
	Patience time.Duration
	// CheckpointEveryNSteps is how much denoising a lost stage can cost.
	CheckpointEveryNSteps int
}

// Spec is a request with every default filled in.
type Spec struct {
	Model              fleet.Model
	Prompt             string
	NegativePrompt     string
	WidthPx, HeightPx  int
	ImageCount         int
	Seed               uint64 // of image 0; see seed
	Steps              int
	GuidanceScale      float32
	Sampler            string
	Format             stage.ImageFormat
	Quality            int
	OmitMetadata       bool
	PreviewEveryNSteps int
}

// guided tells whether there is a second, negative prompt.
func (s Spec) guided() bool { return s.GuidanceScale > 1 }

// prompts are what the encoder gets: the negative first, as the denoiser wants it.
func (s Spec) prompts() []string {
	if s.guided() {
		return []string{s.NegativePrompt, s.Prompt}
	}
	return []string{s.Prompt}
}

// seed is what image i is made with. Behind the largest seed comes 0.
func (s Spec) seed(i int) uint64 { return s.Seed + uint64(i) }

func (s Spec) latentHeight() int { return s.HeightPx / s.Model.SpatialFactor }
func (s Spec) latentWidth() int  { return s.WidthPx / s.Model.SpatialFactor }

// maxAhead is how many images of a job are denoised and not told of yet: decoders may be busy, and who is told slow.
const maxAhead = 4

// Run makes the images of a planned request and emits what happens, from several goroutines. It
// returns when no call of the job is left; what a stage still does for one that was cut off keeps its lease.
func (p *Pipeline) Run(ctx context.Context, id residency.JobID, spec Spec, needs map[stage.Kind]stage.Footprint, emit func(Event)) (Summary, error) {
	j := newJob(p, id, spec, needs, emit)
	defer p.Keeper.Forget(id)
	start := time.Now()

	conditioning, err := j.encode(ctx)
	if err != nil {
		return Summary{}, err
	}
	decoding, ctx := errgroup.WithContext(ctx)
	decoding.SetLimit(maxAhead)
	for i := range spec.ImageCount { // while image i+1 denoises, image i decodes
		latent, err := j.denoise(ctx, i, conditioning)
		if err != nil {
			decoding.Go(func() error { return err }) // stops the others and is the error of all
			break
		}
		decoding.Go(func() error { return j.decode(ctx, i, latent) })
	}
	if err := decoding.Wait(); err != nil {
		return Summary{}, err
	}
	return j.summary(time.Since(start)), nil
}

// job is one request at work.
type job struct {
	*Pipeline
	id    residency.JobID
	spec  Spec
	needs map[stage.Kind]stage.Footprint
	emit  func(Event)

	mu    sync.Mutex
	left  map[stage.Kind]int // turns still to take in each stage
	usage map[stage.Kind]*Usage
	peak  map[string]int64 // reserved bytes by device

	editions map[residency.StageID]stage.Edition // that the request is made with, by service
	used     map[stage.Kind]use                  // of them
	mixed    bool                                // another one turned up
}

func newJob(p *Pipeline, id residency.JobID, spec Spec, needs map[stage.Kind]stage.Footprint, emit func(Event)) *job {
	j := &job{
		Pipeline: p, id: id, spec: spec, needs: needs, emit: emit,
		left:  map[stage.Kind]int{stage.KindEncoder: 1, stage.KindDenoiser: spec.ImageCount, stage.KindDecoder: spec.ImageCount},
		usage: map[stage.Kind]*Usage{}, peak: map[string]int64{}, editions: spec.Model.Editions(), used: map[stage.Kind]use{},
	}
	for _, kind := range stage.Kinds() {
		j.usage[kind] = &Usage{Kind: kind, Footprint: needs[kind]}
	}
	j.announce()
	return j
}

// announce tells the keeper every turn the job will still take, in order.
func (j *job) announce() {
	j.mu.Lock()
	defer j.mu.Unlock()
	var needs []residency.Need
	for turn := range j.spec.ImageCount {
		for _, kind := range stage.Kinds() {
			if j.left[kind] > turn {
				needs = append(needs, j.needing(kind))
			}
		}
	}
	j.Keeper.Announce(j.id, needs)
}

func (j *job) need(kind stage.Kind) residency.Need {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.needing(kind)
}

// needing is need with mu held.
func (j *job) needing(kind stage.Kind) residency.Need {
	return residency.Need{Kind: kind, Model: j.part(kind), Footprint: j.needs[kind], Identity: j.used[kind].edition.Identity}
}

// part names the model whose part serves the job: its own when nobody has the equal one of another any more, as that
// model's files are gone.
func (j *job) part(kind stage.Kind) string {
	own, part := j.spec.Model.Name, j.spec.Model.Part(kind)
	if part != own && j.Fleet.Absent(kind, part) != nil && j.Fleet.Absent(kind, own) == nil {
		return own
	}
	return part
}

// taken counts a turn as taken.
func (j *job) taken(kind stage.Kind) {
	j.mu.Lock()
	j.left[kind]--
	j.mu.Unlock()
	j.announce()
}

func (j *job) summary(total time.Duration) Summary {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := Summary{Total: total}
	for _, kind := range stage.Kinds() {
		s.Stages = append(s.Stages, *j.usage[kind])
	}
	for _, bytes := range j.peak {
		s.PeakBytes += bytes
	}
	return s
}
