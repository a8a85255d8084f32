package stagetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/triptych-serving/triptych/stage"
)

// Models that every fake knows.
const (
	// Model is a model that works; OtherModel is another one, and both fit together.
	Model      = "tiny"
	OtherModel = "small"
	// Film works too, takes prompts of any length, and makes latents of two units.
	Film = "film"
	// TooLarge never fits the budget, not even within the least limit.
	TooLarge = "huge"
	// Broken has files that cannot be used.
	Broken = "broken"
	// Style and Detail are adapters of AdapterKind; Detail has nothing for an encoder.
	Style  = "ink"
	Detail = "grain"
)

// Budget is the memory of a fake, in bytes.
const Budget = 1 << 20

// WarmBudget is memory for the warm weights of Model or OtherModel, and not of both; see Script.Warm.
const WarmBudget = 9000

// residency is the memory of a fake: it counts and keeps the rules, and holds no weights. mu guards
// everything below it; changed is closed and replaced whenever something changed.
type residency struct {
	kind   stage.Kind
	script *Script

	mu         sync.Mutex
	changed    chan struct{}
	components map[string]stage.Component
	held       map[string]*weights
	used, peak int64
	running    int // loads and work
	draining   bool
}

// weights are a component's, from the begin of the load to the end of the evict, or beyond if they are kept warm then.
type weights struct {
	bytes                  int64
	loading, leaving, warm bool
	users                  int
	edition                stage.Edition
}

func newResidency(kind stage.Kind, script *Script) *residency {
	if script == nil {
		script = &Script{}
	}
	r := &residency{
		kind: kind, script: script, changed: make(chan struct{}),
		components: map[string]stage.Component{}, held: map[string]*weights{},
	}
	for model, bytes := range weightsBytes {
		for _, part := range parts[kind] {
			c := stage.Component{Name: model + "/" + part, Model: model, WeightsBytes: bytes, Problem: problems[model]}
			r.components[c.Name] = c
		}
	}
	for model, of := range adapters {
		if part, ok := of[kind]; ok {
			c := stage.Component{Name: model + "/" + part, Model: model, WeightsBytes: 800}
			r.components[c.Name] = c
		}
	}
	return r
}

// weightsBytes are those of each component of the models that draw, and problems why such a model cannot be used.
var (
	weightsBytes = map[string]int64{Model: 4000, OtherModel: 6000, Film: 4000, TooLarge: 8 * Budget, Broken: 4000}
	problems     = map[string]string{Broken: "model.safetensors: the header is cut off"}
)

// models are all that every fake knows, by name.
func models() (out []stage.Model) {
	for model := range weightsBytes {
		out = append(out, stage.Model{Name: model, Recipes: []stage.Recipe{Recipe(model)}, Problem: problems[model]})
	}
	for model := range adapters {
		out = append(out, stage.Model{Name: model, Adapter: AdapterKind})
	}
	slices.SortFunc(out, func(a, b stage.Model) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// part reports whether a model has a part here.
func (r *residency) part(model, part string) bool {
	_, ok := r.components[model+"/"+part]
	return ok
}

// change lets every waiter look again. mu is held.
func (r *residency) change() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// until waits for ok with mu held, and gives it up while waiting.
func (r *residency) until(ctx context.Context, ok func() bool) error {
	for !ok() {
		changed := r.changed
		r.unlocked(func() {
			select {
			case <-changed:
			case <-ctx.Done():
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// unlocked calls f with mu given up meanwhile.
func (r *residency) unlocked(f func()) {
	r.mu.Unlock()
	defer r.mu.Lock()
	f()
}

// find is a component by name. mu is held.
func (r *residency) find(name string) (stage.Component, error) {
	c, ok := r.components[name]
	if !ok {
		return c, stage.NoSuchModel(name, slices.Collect(maps.Keys(r.components)))
	}
	return c, nil
}

// usable is a component whose files can be used. mu is held.
func (r *residency) usable(name string) (stage.Component, error) {
	c, err := r.find(name)
	if err == nil && c.Problem != "" {
		err = stage.Errorf(stage.ModelInvalid, "model %q: %s", c.Model, c.Problem).With("model", c.Model)
	}
	return c, err
}

// admit refuses new work of a draining stage. mu is held.
func (r *residency) admit() error {
	if r.draining {
		return stage.Errorf(stage.StageDraining, "the %v is draining", r.kind).With("stage", r.kind.String())
	}
	return nil
}

// take counts bytes, or refuses them. mu is held.
func (r *residency) take(component string, bytes int64) error {
	if r.used+bytes > Budget {
		return stage.DoesNotFit(r.kind, stage.ModelOf(component), bytes, Budget-r.used, Budget)
	}
	r.used += bytes
	r.peak = max(r.peak, r.used)
	return nil
}

// Info tells what the fake is.
func (r *residency) Info(ctx context.Context) (stage.Info, error) {
	if err := ctx.Err(); err != nil {
		return stage.Info{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i := stage.Info{
		Kind: r.kind, Version: "fake", Host: "localhost", Device: "fake:0", MemoryBudgetBytes: Budget,
		Models: models(), UsedBytes: r.used, PeakBytes: r.peak, Generation: 1, Draining: r.draining,
		WarmBudgetBytes: r.script.get().warm, Planning: fmt.Sprintf("fake, %s", stage.Count(r.script.get().threads, "thread")), Compute: r.script.get().compute,
	}
	for _, name := range slices.Sorted(maps.Keys(r.components)) {
		c := r.components[name]
		c.Edition = r.script.get().edition
		i.Components = append(i.Components, c)
	}
	for _, name := range slices.Sorted(maps.Keys(r.held)) {
		switch w, c := r.held[name], (stage.ResidentComponent{Name: name, WeightsBytes: r.held[name].bytes, Stale: r.stale(r.held[name])}); {
		case w.warm:
			i.Warm = append(i.Warm, c)
		case !w.loading && !w.leaving:
			i.Resident = append(i.Resident, c)
		}
	}
	return i, nil
}

// Load counts the weights in, a quarter at a time, or at once if they are warm.
func (r *residency) Load(ctx context.Context, req stage.LoadRequest, progress func(loadedBytes, totalBytes int64)) error {
	name := req.Component
	if progress == nil {
		progress = func(int64, int64) {}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.admit(); err != nil {
		return err
	}
	c, err := r.usable(name)
	if err != nil {
		return err
	}
	err = r.until(ctx, func() bool { w := r.held[name]; return w == nil || !w.loading && !w.leaving })
	if err != nil {
		return err
	}
	if w := r.held[name]; w != nil && !w.warm && w.users == 0 && r.stale(w) != "" {
		r.used -= w.bytes
		delete(r.held, name)
	}
	if w := r.held[name]; w == nil || w.warm {
		if err := r.load(ctx, c, req.LimitBytes, progress); err != nil {
			return err
		}
	}
	held, edition := r.held[name].bytes, r.held[name].edition
	r.unlocked(func() {
		if req.Edition != nil {
			req.Edition(edition)
		}
		progress(held, held)
	})
	return nil
}

// load counts in what is not held. mu is held, but not during a step.
func (r *residency) load(ctx context.Context, c stage.Component, limit int64, progress func(loadedBytes, totalBytes int64)) (err error) {
	if err := r.admit(); err != nil { // drained while waiting
		return err
	}
	bytes := within(c.WeightsBytes, limit)
	if limit != 0 && bytes > limit {
		return stage.DoesNotFit(r.kind, c.Model, bytes, limit, Budget)
	}
	if w := r.held[c.Name]; w != nil && w.bytes == bytes && r.stale(w) == "" { // it is warm
		if err := r.take(c.Name, bytes); err != nil {
			return err
		}
		w.warm = false
		r.change()
		return nil
	}
	delete(r.held, c.Name)
	if err := r.take(c.Name, bytes); err != nil {
		return err
	}
	w := &weights{bytes: bytes, loading: true, edition: r.script.get().edition}
	r.held[c.Name] = w
	r.running++
	const quarters = 4
	for q := 1; q <= quarters && err == nil; q++ {
		r.unlocked(func() {
			if err = r.script.at(ctx, OpLoad, q); err == nil && q < quarters {
				progress(bytes*int64(q)/quarters, bytes)
			}
		})
	}
	if err != nil {
		delete(r.held, c.Name)
		r.used -= bytes
	}
	w.loading = false
	r.running--
	r.change()
	return err
}

// within is what weights take within a limit: whole eighths, two of which are the least.
func within(whole, limit int64) int64 {
	eighth := whole / 8
	if limit == 0 || limit >= whole {
		return whole
	}
	return max(2*eighth, limit/eighth*eighth)
}

// Evict counts the weights out when nobody uses them.
func (r *residency) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	name := req.Component
	if err := ctx.Err(); err != nil {
		return stage.Evicted{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.until(ctx, func() bool { w := r.held[name]; return w == nil || !w.loading && !w.leaving }); err != nil {
		return stage.Evicted{}, err
	}
	w := r.held[name]
	if w == nil {
		return stage.Evicted{}, nil
	}
	var evicted stage.Evicted
	defer r.change()
	if !w.warm {
		w.leaving = true
		err := r.until(ctx, func() bool { return w.users == 0 })
		w.leaving = false
		if err != nil {
			return stage.Evicted{}, err
		}
		evicted.FreedBytes = w.bytes
		r.used -= w.bytes
	}
	if req.Keep && r.stale(w) == "" && (w.warm || r.warm()+w.bytes <= r.script.get().warm) {
		w.warm = true
		evicted.WarmBytes = w.bytes
	} else {
		delete(r.held, name)
	}
	return evicted, nil
}

// stale is why weights are not to be used again.
func (r *residency) stale(w *weights) string {
	if w.edition.Differs(r.script.get().edition) {
		return "its files have changed"
	}
	return ""
}

// warm is the bytes of all warm weights. mu is held.
func (r *residency) warm() (sum int64) {
	for _, w := range r.held {
		if w.warm {
			sum += w.bytes
		}
	}
	return sum
}

// Settle waits until nobody loads or uses the weights.
func (r *residency) Settle(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.until(ctx, func() bool { w := r.held[name]; return w == nil || !w.loading && w.users == 0 })
}

// Drain refuses work from now on.
func (r *residency) Drain(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
	return r.until(ctx, func() bool { return r.running == 0 })
}

// Undrain takes new work again.
func (r *residency) Undrain(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = false
	return nil
}

// begin starts work with scratch on components that are resident, all of them; end has to be called when it is over.
func (r *residency) begin(ctx context.Context, components []string, scratch int64) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.admit(); err != nil {
		return nil, err
	}
	for _, name := range components {
		if w := r.held[name]; w == nil || w.loading || w.leaving || w.warm || r.stale(w) != "" {
			return nil, stage.Errorf(stage.StageEvicted, "component %q is not resident in the %v", name, r.kind).
				With("stage", r.kind.String()).With("model", stage.ModelOf(name)).With("component", name)
		}
	}
	if err := r.take(components[0], scratch); err != nil {
		return nil, err
	}
	count := func(by int) {
		for _, name := range components {
			r.held[name].users += by
		}
		r.running += by
	}
	count(1)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		count(-1)
		r.used -= scratch
		r.change()
	}, nil
}
