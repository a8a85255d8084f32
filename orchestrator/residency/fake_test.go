package residency

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// parts name a model's component at each kind of stage.
var parts = map[stage.Kind]string{stage.KindEncoder: "text_encoder", stage.KindDenoiser: "unet", stage.KindDecoder: "vae.decoder"}

// named is the name of a model's component at a kind of stage.
func named(k stage.Kind, model string) string { return model + "/" + parts[k] }

// single is the need of one component, in bytes.
func single(k stage.Kind, model string, weights, scratch int64) Need {
	return Need{Kind: k, Components: []string{named(k, model)}, Footprints: map[string]stage.Footprint{"": takes(scratch, weights)}}
}

// takes is a footprint, in bytes.
func takes(scratch int64, weights ...int64) (f stage.Footprint) {
	for _, w := range weights {
		f.Weights = append(f.Weights, stage.Weights{Bytes: w, WholeBytes: w})
	}
	f.ScratchBytes = scratch
	return f
}

// memory is a device that fails the test when more is held than it has.
type memory struct {
	t      *testing.T
	budget int64

	mu   sync.Mutex
	used int64
}

func (m *memory) add(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used += bytes; m.used > m.budget {
		m.t.Errorf("%d bytes are held of %d", m.used, m.budget)
	}
}

// fake is a stage whose weights are bytes of a memory.
type fake struct {
	*memory
	weights int64

	// loads, evictions and settles, if not nil, are sent to before each one, which then goes on with what comes
	// back: an error fails it.
	loads, evictions, settles chan chan error

	mu       sync.Mutex
	resident map[string]bool
	calls    []string
	asked    []uint64 // the generations that loads and evictions were for
}

func newFake(m *memory, weights int64) *fake {
	return &fake{memory: m, weights: weights, resident: map[string]bool{}}
}

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) ask(generation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, generation)
}

// gate waits for the test.
func gate(ctx context.Context, at chan chan error) error {
	if at == nil {
		return ctx.Err()
	}
	answer := make(chan error)
	select {
	case at <- answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fake) Load(ctx context.Context, req stage.LoadRequest, progress func(loaded, total int64)) error {
	name := req.Component
	f.note("load %s", name)
	f.ask(req.Generation)
	progress(0, f.weights)
	if err := gate(ctx, f.loads); err != nil {
		f.note("load %s: %v", name, err)
		return err
	}
	if req.Edition != nil {
		req.Edition(stage.Edition{Stamp: name})
	}
	progress(f.weights, f.weights)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.resident[name] {
		f.resident[name] = true
		f.add(f.weights)
	}
	return nil
}

func (f *fake) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	name := req.Component
	f.note("evict %s", name)
	f.ask(req.Generation)
	if err := gate(ctx, f.evictions); err != nil {
		return stage.Evicted{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.resident[name] {
		return stage.Evicted{}, nil
	}
	f.resident[name] = false
	f.add(-f.weights)
	return stage.Evicted{FreedBytes: f.weights}, nil
}

func (*fake) Info(context.Context) (stage.Info, error) { return stage.Info{}, nil }
func (*fake) Plan(context.Context, stage.PlanRequest) (stage.Footprint, error) {
	return stage.Footprint{}, nil
}

func (f *fake) Settle(ctx context.Context, name string) error {
	f.note("settle %s", name)
	return gate(ctx, f.settles)
}
func (*fake) Drain(context.Context) error { return nil }

func (*fake) Undrain(context.Context) error { return nil }
