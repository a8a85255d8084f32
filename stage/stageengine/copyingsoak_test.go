package stageengine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/stage"
)

// soaker does things at random to a stack.
type soaker struct {
	*stack
	rng    *rand.Rand
	images map[string][]byte
	did    map[string]int // how often, by what came of it
}

// step does one thing to a stage, and tells what.
func (s *soaker) step(t *testing.T, r *Stage) (what string) {
	ctx, model := t.Context(), stackModels[s.rng.IntN(len(stackModels))]
	part := partOf(r, model)
	allowed := func(err error, reasons ...stage.Reason) {
		t.Helper()
		reason := stage.ReasonOf(err)
		if err != nil && !slices.Contains(reasons, reason) {
			t.Errorf("%s: %v", what, err)
		}
		s.did[strings.Fields(what)[0]+" "+string(reason)]++
	}
	switch n := s.rng.IntN(10); {
	case n < 4:
		f, err := footprint(ctx, r, model, 8, 8, 1, 1)
		limit := f.WeightsBytes() + s.rng.Int64N(2*(f.WholeBytes()-f.WeightsBytes()))
		what = fmt.Sprintf("load %s within %d", part, limit)
		allowed(errors.Join(err, r.Load(ctx, stage.LoadRequest{Component: part, LimitBytes: limit}, nil)), stage.ModelDoesNotFit)
	case n < 6:
		keep := s.rng.IntN(4) > 0
		what = fmt.Sprintf("evict %s, keep %v", part, keep)
		e, err := r.Evict(ctx, stage.EvictRequest{Component: part, Keep: keep})
		allowed(err)
		if e.WarmBytes > 0 {
			s.did["keep"]++
		}
	default:
		what = "draw " + model
		img, err := s.draw(ctx, model)
		allowed(err, stage.StageEvicted, stage.EngineOOMUnplanned)
		if err == nil && !bytes.Equal(img, s.images[model]) {
			t.Errorf("%s: another image", what)
		}
	}
	return what
}

// draw makes an image, or says what is missing for it.
func (s *stack) draw(ctx context.Context, model string) ([]byte, error) {
	states, err := encode(ctx, s.encoder, model, "a fox")
	if err != nil {
		return nil, err
	}
	latents, err := denoise(ctx, s.denoiser, denoising{Model: model, States: states, H: 8, W: 8, Steps: 1, Guidance: 1, Sampler: "euler", Seed: 7}, stage.Observer{})
	if err != nil {
		return nil, err
	}
	file, err := decode(ctx, s.decoder, model, latents, "png", "")
	if err != nil {
		return nil, err
	}
	return file.Data, nil
}

// Loads, evictions and images at random, of two models that do not fit together, on a device that refuses memory and fails to
// offload at random: behind every step memory and claim are what the stages say, to the byte, and images are the same. So they
// are behind three that do it at once.
func TestCopyingSoak(t *testing.T) {
	did := map[string]int{}
	for seed := range uint64(3) {
		random := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }
		var (
			mu     sync.Mutex
			faults = random(0)
			part   = 0
		)
		at := func(n int) func(int64) error {
			return func(int64) error {
				mu.Lock()
				defer mu.Unlock()
				if part > 0 && faults.IntN(part*n) == 0 {
					return errors.New("injected")
				}
				return nil
			}
		}
		claim := &sharing{left: 1 << 30}
		o := devicetest.CopyingOptions{CapBytes: 8 << 20, OverheadBytes: 1 << 20, Claim: claim, Refuse: at(4), Fail: at(1)}
		s := &soaker{newCopyingStack(t, o, 3<<20), random(1), map[string][]byte{}, did}
		for _, model := range stackModels {
			s.loadAll(t, model)
			img, err := s.draw(t.Context(), model)
			if err != nil {
				t.Fatal(err)
			}
			s.images[model] = img
			s.evictAll(t)
		}
		part = 4
		var done []string
		for range 200 {
			done = append(done, s.step(t, s.stages()[s.rng.IntN(3)]))
			s.check(t, fmt.Sprintf("seed %d, behind %q", seed, done[max(0, len(done)-5):]))
			if m := s.device.Memory(); claim.left != 1<<30-o.OverheadBytes-m.UsedBytes {
				t.Fatalf("seed %d, behind %q: %d bytes are left of the claim, memory %+v", seed, done[len(done)-1], claim.left, m)
			}
		}
		var group sync.WaitGroup
		for i, r := range s.stages() {
			beside := &soaker{s.stack, random(uint64(2 + i)), s.images, map[string]int{}}
			group.Go(func() {
				for range 50 {
					beside.step(t, r)
				}
			})
		}
		group.Wait()
		s.check(t, fmt.Sprintf("seed %d, in the end", seed))
		mu.Lock()
		part = 0
		mu.Unlock()
	}
	t.Logf("%v", did)
	for _, what := range []string{"load ", "load MODEL_DOES_NOT_FIT", "evict ", "keep", "draw ", "draw STAGE_EVICTED", "draw ENGINE_OOM_UNPLANNED"} {
		if did[what] == 0 {
			t.Errorf("of %q there was none in %v", what, did)
		}
	}
}
