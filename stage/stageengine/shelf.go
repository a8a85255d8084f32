package stageengine

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// Options is what every stage is made with.
type Options struct {
	Library *Library
	Device  device.Device
	Host    string // the machine, see stage.Info
	// Lease tells what other processes do with the device; nil where there are none.
	Lease   Lease
	Version string // of the serving program
	// Precision is the type in which a stage keeps the weights of linear layers and convolutions, see device.Param; as
	// stored if there is none. Everything is computed in float32.
	Precision map[stage.Kind]tensor.DType
	// ResidentBytes is how much of a model's weights a stage keeps in memory; it streams the others from the
	// model's files at each use (device.LoadPlan). A stage that is not in it keeps all, or what the limit of a request
	// to plan or load allows, which others do not heed.
	ResidentBytes map[stage.Kind]int64
	// WarmBytes is the most memory of the host that evicted weights are kept in; 0 keeps none.
	WarmBytes int64
	// Released tells Info what the process gave back between runs, see stage.Info; nil is nothing.
	Released func() (times, bytes int64)
	// Logger gets the warnings of each model (stage.Component) once, when its network is declared; nil is no log.
	Logger *slog.Logger
}

// Lease is the device as its processes share it.
type Lease interface {
	// Observe tells the others for whom this process works and what that one lacks, and gives what they have and want.
	Observe(orchestrator string, want stage.Want) stage.DeviceShare
}

// network is a part of a model that a stage loads: modeldir.TextEncoder, Denoiser or ImageDecoder.
type network interface {
	Manifest() *device.Manifest
	Source() device.Source
	Tensors() []modeldir.Tensor
	Warnings() []string
	Watch(p *weights.Prints)
	Print(p *weights.Prints) (digest [sha256.Size]byte, known bool)
	Close() error
}

// shelf holds one kind of network of every model of a library: it is the Resident half of a stage.
type shelf[N network] struct {
	Options
	kind     stage.Kind
	open     func(*modeldir.Dir) (N, error)
	describe func(*modeldir.Dir, N, *book[N]) error
	draining atomic.Bool
	working  atomic.Int64        // loads and work under way
	hashing  hashing             // of digests
	warmth   *semaphore.Weighted // WarmBytes, less those of what is warm
	looks    looks

	mu    sync.Mutex // a leaf
	books map[string]*book[N]
}

// newShelf declares the network of every model. describe fills in what the book tells of it; what
// is wrong with a model is kept for those who ask for it.
func newShelf[N network](o Options, kind stage.Kind, open func(*modeldir.Dir) (N, error), describe func(*modeldir.Dir, N, *book[N]) error) *shelf[N] {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &shelf[N]{Options: o, kind: kind, open: open, describe: describe, books: map[string]*book[N]{}, warmth: semaphore.NewWeighted(o.WarmBytes)}
	for _, name := range o.Library.Names() {
		if path, err := o.Library.path(name); err == nil {
			s.books[name] = s.declare(name, path)
		}
	}
	s.compareSettings()
	return s
}

// dir opens a model whose networks are kept as Precision says.
func (s *shelf[N]) dir(path string) (*modeldir.Dir, error) {
	dir, err := modeldir.Open(path)
	if err == nil {
		dir.Resident = s.Precision[s.kind]
	}
	return dir, err
}

// opened opens the network of a model with its weight files.
func (s *shelf[N]) opened(path string) (net N, err error) {
	dir, err := s.dir(path)
	if err != nil {
		return net, err
	}
	return s.open(dir)
}

// Info implements stage.Resident.
func (s *shelf[N]) Info(ctx context.Context) (stage.Info, error) {
	if err := ctx.Err(); err != nil {
		return stage.Info{}, err
	}
	s.refresh(ctx)
	s.startDigests()
	memory := s.Device.Memory()
	info := stage.Info{
		Kind: s.kind, Version: s.Version, Host: s.Host, Device: s.Device.Name(), MemoryBudgetBytes: memory.CapBytes,
		UsedBytes: memory.UsedBytes, PeakBytes: memory.PeakBytes, Generation: 1, Draining: s.draining.Load(),
		WarmBudgetBytes: s.WarmBytes,
	}
	if s.Released != nil {
		info.Releases, info.ReleasedBytes = s.Released()
	}
	if s.Lease != nil {
		c := stage.CallerOf(ctx)
		share := s.Lease.Observe(c.Orchestrator, c.Want)
		info.MemoryBudgetBytes, info.ForeignBytes, info.ForeignWants, info.DeviceLease = share.BudgetBytes, share.ForeignBytes, share.ForeignWants, share.Lease
	}
	for _, b := range s.all() {
		c := b.component
		c.Identity = b.edition().Identity
		if d := b.digest.Load(); d != nil && b.alike.Load() {
			c.Digest = *d
		}
		if h := b.held.Load(); h != nil {
			m := stage.ResidentModel{Model: c.Model, WeightsBytes: h.bytes}
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
		info.Models = append(info.Models, c)
	}
	return info, nil
}

// Pulse tells whether the device gets on with its work. It waits for nothing.
func (s *shelf[N]) Pulse() stage.Pulse {
	a := s.Device.Activity()
	return stage.Pulse{Running: a.Running, Moved: a.Moved}
}

// find gives a model's book, or why it has none.
func (s *shelf[N]) find(model string) (*book[N], error) {
	b := s.book(model)
	if b == nil {
		var names []string
		for _, b := range s.all() {
			names = append(names, b.component.Model)
		}
		return nil, stage.NoSuchModel(model, names)
	}
	if b.problem == nil {
		return b, nil
	}
	if changed, _ := b.changed(); changed && b.latch.TryAcquire(whole) {
		s.renew(b)
		b.latch.Release(whole)
		if again := s.book(model); again != nil {
			b = again
		}
	}
	if b.problem != nil {
		return nil, b.problem
	}
	return b, nil
}

// Load implements stage.Resident.
func (s *shelf[N]) Load(ctx context.Context, req stage.LoadRequest, progress func(loaded, total int64)) error {
	b, err := s.find(req.Model)
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
	if b, err = s.current(ctx, req.Model); err != nil {
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
func (s *shelf[N]) load(ctx context.Context, b *book[N], limitBytes int64, progress func(loaded, total int64)) error {
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
func (s *shelf[N]) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	b, err := s.latched(ctx, req.Model, whole)
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
func (s *shelf[N]) Settle(ctx context.Context, model string) error {
	b, err := s.latched(ctx, model, whole)
	if b != nil {
		b.latch.Release(whole)
	}
	return err
}

// Drain implements stage.Resident.
func (s *shelf[N]) Drain(ctx context.Context) error {
	s.draining.Store(true)
	s.hashing.stop()
	for _, b := range s.all() {
		if err := s.Settle(ctx, b.component.Model); err != nil {
			return err
		}
	}
	return nil
}

// Undrain implements stage.Resident.
func (s *shelf[N]) Undrain(context.Context) error {
	s.draining.Store(false)
	return nil
}

// use gives a resident model's book to work with; the caller must call done.
func (s *shelf[N]) use(ctx context.Context, model string) (b *book[N], done func(), err error) {
	if _, err = s.find(model); err != nil {
		return nil, nil, err
	}
	if s.draining.Load() {
		return nil, nil, s.drainingError()
	}
	if b, err = s.latched(ctx, model, 1); err != nil {
		return nil, nil, err
	} else if b == nil {
		_, err = s.find(model)
		return nil, nil, err
	}
	s.working.Add(1)
	done = func() {
		if b.held.Load() != nil {
			b.identify() // streamed weights have been read by now
		}
		s.working.Add(-1)
		b.latch.Release(1)
	}
	if _, ok := b.resident(); !ok {
		done()
		return nil, nil, stage.Errorf(stage.StageEvicted, "the %v does not hold model %q: load it first", s.kind, model).
			With("stage", s.kind.String()).With("model", model)
	}
	return b, done, nil
}

// footprint is what running tape takes with a model.
func (s *shelf[N]) footprint(model string, tape *device.Tape, limitBytes int64) (stage.Footprint, error) {
	b, err := s.find(model)
	if err != nil {
		return stage.Footprint{}, err
	}
	scratch, err := s.Device.ScratchBytes(tape, device.RunOptions{})
	if err != nil {
		return stage.Footprint{}, s.fault(err)
	}
	return s.holding(b, limitBytes, scratch), nil
}

// holding is a footprint of a known scratch.
func (s *shelf[N]) holding(b *book[N], limitBytes, scratch int64) stage.Footprint {
	return stage.Footprint{WeightsBytes: s.limited(b, limitBytes), ScratchBytes: scratch, WholeBytes: b.component.WeightsBytes}
}
