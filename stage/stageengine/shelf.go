package stageengine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// Options is what every stage is made with.
type Options struct {
	Library  *Library
	Families []family.Family // whose models are known
	Device   device.Device
	Host     string // the machine, see stage.Info
	// Claim tells what other processes do with the device; nil where there are none.
	Claim   Claim
	Version string // of the serving program
	// Precision is the type in which a stage keeps the weights of linear layers and convolutions, see device.Param; as
	// stored if there is none.
	Precision map[stage.Kind]tensor.DType
	// Compute is the type of the factors that a stage multiplies, float32 if there is none. The device must have it.
	Compute map[stage.Kind]device.Compute
	// ResidentBytes is how much of a component's weights a stage keeps in memory; it streams the others from the
	// model's files at each use (device.LoadPlan). A stage that is not in it keeps all, or what the limit of a request
	// to plan or load allows, which others do not heed.
	ResidentBytes map[stage.Kind]int64
	// WarmBytes is the most memory of the host that evicted weights are kept in; 0 keeps none.
	WarmBytes int64
	// Released tells Info what the process gave back between runs, see stage.Info; nil is nothing.
	Released func() (times, bytes int64)
	// Logger gets the warnings of each component (stage.Component) once, when its network is declared; nil is no log.
	Logger *slog.Logger
	// Outline declares networks for plans alone: their weights may be absent, and the engine need not be able to run them.
	Outline bool
}

// Claim is the device as its processes share it.
type Claim interface {
	// Observe tells the others for whom this process works and what that one lacks, and gives what they have and want.
	Observe(orchestrator string, want stage.Want) stage.DeviceShare
}

// Stage is a stage of any kind over the engine. It has the components of its kind of every model of a library.
type Stage struct {
	Options
	kind     stage.Kind
	draining atomic.Bool
	working  atomic.Int64        // loads and work under way
	hashing  hashing             // of digests
	warmth   *semaphore.Weighted // WarmBytes, less those of what is warm
	looks    looks

	mu        sync.Mutex // a leaf
	models    map[string]*model
	books     map[string]*book // by component
	declaring bool             // many books are put, which are compared with each other behind the last one
}

// New declares the components of a kind of every model of the library; none is loaded. What is wrong with a model is kept
// for those who ask for it.
func New(kind stage.Kind, o Options) *Stage {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Stage{Options: o, kind: kind, models: map[string]*model{}, books: map[string]*book{}, warmth: semaphore.NewWeighted(o.WarmBytes)}
	s.declaring = true
	for _, name := range o.Library.Names() {
		if path, err := o.Library.Path(name); err == nil {
			s.declare(name, path)
		}
	}
	s.compare()
	return s
}

// Info implements stage.Resident.
func (s *Stage) Info(ctx context.Context) (stage.Info, error) {
	if err := ctx.Err(); err != nil {
		return stage.Info{}, err
	}
	s.refresh(ctx)
	s.startDigests()
	memory, overhead := s.Device.Memory(), s.Device.OverheadBytes()
	info := stage.Info{
		Kind: s.kind, Version: s.Version, Host: s.Host, Device: s.Device.Name(), MemoryBudgetBytes: memory.CapBytes,
		UsedBytes: overhead + memory.UsedBytes, PeakBytes: overhead + memory.PeakBytes, Generation: 1, Draining: s.draining.Load(),
		WarmBudgetBytes: s.WarmBytes, OverheadBytes: overhead, Planning: s.planning(memory.CapBytes), Compute: s.Compute[s.kind].String(),
	}
	if s.Released != nil {
		info.Releases, info.ReleasedBytes = s.Released()
	}
	if s.Claim != nil {
		c := stage.CallerOf(ctx)
		share := s.Claim.Observe(c.Orchestrator, c.Want)
		info.MemoryBudgetBytes, info.ForeignBytes, info.ForeignWants, info.DeviceClaims = share.BudgetBytes, share.ForeignBytes, share.ForeignWants, share.Claim
	}
	for _, m := range s.known() {
		told := stage.Model{Name: m.name, Problem: m.unusable}
		if m.files != nil {
			told.Recipes, told.Adapter = m.files.Recipes, m.files.Adapter
		}
		info.Models = append(info.Models, told)
	}
	for _, b := range s.all() {
		c := b.component
		c.Identity = b.edition().Identity
		if d := b.digest.Load(); d != nil && b.alike.Load() {
			c.Digest = *d
		}
		if h := b.held.Load(); h != nil {
			m := stage.ResidentComponent{Name: c.Name, WeightsBytes: h.bytes}
			if why := b.stale.Load(); why != nil {
				m.Stale, c.Digest, c.Edition = *why, "", stage.Edition{}
				if *why == folderGone {
					c.Problem = folderGone
				}
			}
			if h.warm {
				info.Warm = append(info.Warm, m)
			} else {
				info.Resident = append(info.Resident, m)
			}
		}
		info.Components = append(info.Components, c)
	}
	return info, nil
}

// planning tells what Plan's answers depend on beside the models.
func (s *Stage) planning(budget int64) string {
	text := fmt.Sprintf("%s %s %d %d %v", s.Version, s.Device.Class(), s.Device.OverheadBytes(), budget, s.Precision[s.kind])
	if c := s.Compute[s.kind]; c != device.ComputeF32 {
		text += fmt.Sprintf(" computes %v", c)
	}
	if fixed, told := s.ResidentBytes[s.kind]; told {
		text += fmt.Sprintf(" resident %d", fixed)
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:16]
}

// Pulse tells whether the device gets on with its work. It waits for nothing.
func (s *Stage) Pulse() stage.Pulse {
	a := s.Device.Activity()
	return stage.Pulse{Running: a.Running, Moved: a.Moved}
}

// find gives a component's book, or why it has none.
func (s *Stage) find(component string) (*book, error) {
	b := s.book(component)
	if b == nil {
		return s.findBroken(component)
	}
	if b.problem == nil {
		return b, nil
	}
	if changed, _ := b.changed(); changed && b.latch.TryAcquire(whole) {
		s.renew(b)
		b.latch.Release(whole)
		if again := s.book(component); again != nil {
			b = again
		}
	}
	if b.problem != nil {
		return nil, b.problem
	}
	return b, nil
}

// findBroken is find of a component that has no book: of a model that could not be opened when it was declared.
func (s *Stage) findBroken(component string) (*book, error) {
	if m := s.model(stage.ModelOf(component)); m != nil && m.problem != nil {
		if changed, _ := m.changed(); changed {
			m = s.declare(m.name, m.path)
		}
		if b := s.book(component); b != nil && b.problem == nil {
			return b, nil
		} else if b != nil {
			return nil, b.problem
		}
		if m.problem != nil {
			return nil, m.problem
		}
	}
	var names []string
	for _, b := range s.all() {
		names = append(names, b.component.Name)
	}
	return nil, stage.Invalid(stage.ModelNotFound, "component", component, "one of "+strings.Join(names, ", "))
}

// Load implements stage.Resident.
func (s *Stage) Load(ctx context.Context, req stage.LoadRequest, progress func(loaded, total int64)) error {
	b, err := s.find(req.Component)
	if err != nil {
		return err
	}
	if s.draining.Load() {
		return s.drainingError()
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	loaded := func(bytes int64) error {
		if req.Edition != nil {
			req.Edition(b.edition())
		}
		progress(bytes, bytes)
		return nil
	}
	if bytes, ok := b.resident(); ok {
		return loaded(bytes)
	}
	if b, err = s.current(ctx, req.Component); err != nil {
		return err
	}
	defer b.latch.Release(whole)
	s.working.Add(1)
	defer s.working.Add(-1)
	if _, ok := b.resident(); !ok {
		if err := s.load(ctx, b, req.LimitBytes, progress); err != nil {
			return err
		}
	}
	return loaded(b.held.Load().bytes)
}

// load makes weights resident that are not: as they are if they are warm and as large as asked for, or else by reading them.
func (s *Stage) load(ctx context.Context, b *book, limitBytes int64, progress func(loaded, total int64)) error {
	total := s.limited(b, limitBytes)
	if limitBytes != 0 && total > limitBytes {
		return stage.DoesNotFit(s.kind, b.component.Model, total, limitBytes, s.Device.Memory().CapBytes)
	}
	if h := b.held.Load(); h != nil && h.bytes == total && b.stale.Load() == nil {
		if err := s.rouse(ctx, b); err != nil {
			return s.loadError(err, b)
		}
		return nil
	} else if h != nil {
		if err := s.drop(b); err != nil {
			return err
		}
	}
	if err := b.read(ctx, s, limitBytes, func(done int64) { progress(min(done, total), total) }); err != nil {
		return s.loadError(err, b)
	}
	return nil
}

// Evict implements stage.Resident.
func (s *Stage) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	b, err := s.latched(ctx, req.Component, whole)
	if b == nil { // what nobody knows is not resident
		return stage.Evicted{}, err
	}
	defer b.latch.Release(whole)
	held := b.held.Load()
	if held == nil {
		return stage.Evicted{}, nil
	}
	var evicted stage.Evicted
	if !held.warm {
		evicted.FreedBytes = held.bytes
	}
	if req.Keep && b.stale.Load() == nil && (held.warm || s.keep(ctx, b)) {
		evicted.WarmBytes = held.bytes
		return evicted, nil
	}
	return evicted, s.drop(b)
}

// Settle implements stage.Resident.
func (s *Stage) Settle(ctx context.Context, component string) error {
	b, err := s.latched(ctx, component, whole)
	if b != nil {
		b.latch.Release(whole)
	}
	return err
}

// Drain implements stage.Resident.
func (s *Stage) Drain(ctx context.Context) error {
	s.draining.Store(true)
	s.hashing.stop()
	for _, b := range s.all() {
		if err := s.Settle(ctx, b.component.Name); err != nil {
			return err
		}
	}
	return nil
}

// Undrain implements stage.Resident.
func (s *Stage) Undrain(context.Context) error {
	s.draining.Store(false)
	return nil
}
