package stageengine

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/tensor"
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
	// model's files at each use (device.Manifest). A stage that is not in it keeps all, or what the limit of a request
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
	Close() error
}

// shelf holds one kind of network of every model of a library: it is the Resident half of a stage.
type shelf[N network] struct {
	Options
	kind     stage.Kind
	open     func(*modeldir.Dir) (N, error)
	books    map[string]*book[N]
	draining atomic.Bool
	working  atomic.Int64        // loads and work under way
	compare  sync.Once           // starts digests
	warmth   *semaphore.Weighted // WarmBytes, less those of what is warm
}

// book is one model's network.
//
// latch orders access to weights: work takes 1 of it, loading and eviction take all. It is fair, so
// an eviction waits for the work before it and work behind it finds the weights gone.
type book[N network] struct {
	path      string
	component stage.Component
	net       atomic.Pointer[N] // declared; its files are closed, or open while weights are streamed from them. Plans read it while loads exchange it
	problem   *stage.Error      // why net is not there
	latch     *semaphore.Weighted
	store     *store                 // held with the weights; only an encoder has one
	weights   device.Weights         // nil when neither resident nor warm
	held      atomic.Pointer[held]   // nil with weights; Info, which takes no latch, reads it
	stale     atomic.Pointer[string] // why what is held is not to be used again; nil if it may be

	identity string   // see there
	alike    bool     // another one has it as well
	files    []string // of the weights
	digest   atomic.Pointer[digest]
}

// held is what weights and store take, where they are.
type held struct {
	bytes int64
	warm  bool // in the host's memory; else on the device
}

// resident reports whether the weights are on the device and may be used. It takes no latch.
func (b *book[N]) resident() (bytes int64, ok bool) {
	h := b.held.Load()
	if h == nil || h.warm || b.stale.Load() != nil {
		return 0, false
	}
	return h.bytes, true
}

// distrust has what is held evicted, and not used again. Part of the latch is held.
func (b *book[N]) distrust(why string) { b.stale.CompareAndSwap(nil, &why) }

// network is the one declared last.
func (b *book[N]) network() N { return *b.net.Load() }

const whole = math.MaxInt64

// newShelf declares the network of every model. describe fills in what Component tells of it; what
// is wrong with a model is kept for those who ask for it.
func newShelf[N network](o Options, kind stage.Kind, open func(*modeldir.Dir) (N, error), describe func(*modeldir.Dir, N, *stage.Component) error) *shelf[N] {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &shelf[N]{Options: o, kind: kind, open: open, books: map[string]*book[N]{}, warmth: semaphore.NewWeighted(o.WarmBytes)}
	for _, name := range o.Library.Names() {
		b := &book[N]{path: o.Library.paths[name], component: stage.Component{Model: name}, latch: semaphore.NewWeighted(whole)}
		if err := b.declare(s, describe); err != nil {
			b.problem = modelError(err, kind, name, b.path)
			b.component.Problem = b.problem.Message
		}
		for _, warning := range b.component.Warnings {
			s.Logger.Warn("a model is not as expected", "model", name, "warning", warning)
		}
		s.books[name] = b
	}
	s.compareIdentities()
	return s
}

func (b *book[N]) declare(s *shelf[N], describe func(*modeldir.Dir, N, *stage.Component) error) error {
	dir, err := s.dir(b.path)
	if err != nil {
		return err
	}
	net, err := s.open(dir)
	if err != nil {
		return err
	}
	b.net.Store(&net)
	s.limit(b, net.Manifest(), 0)
	b.component.WeightsBytes = s.Device.WeightBytes(net.Manifest())
	b.component.Warnings = net.Warnings()
	b.files = filesOf(net.Tensors())
	if err = errors.Join(describe(dir, net, &b.component), net.Close()); err != nil {
		return err
	}
	b.identity, err = identity(s.kind, dir, net)
	return err
}

// dir opens a model whose networks are kept as Precision says.
func (s *shelf[N]) dir(path string) (*modeldir.Dir, error) {
	dir, err := modeldir.Open(path)
	if err == nil {
		dir.Resident = s.Precision[s.kind]
	}
	return dir, err
}

// Info implements stage.Resident.
func (s *shelf[N]) Info(ctx context.Context) (stage.Info, error) {
	if err := ctx.Err(); err != nil {
		return stage.Info{}, err
	}
	s.compare.Do(func() { go s.digests() })
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
		info.MemoryBudgetBytes, info.ForeignBytes, info.ForeignWants = share.BudgetBytes, share.ForeignBytes, share.ForeignWants
	}
	for _, name := range s.Library.Names() {
		b := s.books[name]
		c := b.component
		if b.alike {
			c.Digest, c.Stamp = b.known()
		}
		info.Models = append(info.Models, c)
		if h := b.held.Load(); h != nil {
			m := stage.ResidentModel{Model: name, WeightsBytes: h.bytes}
			if why := b.stale.Load(); why != nil {
				m.Stale = *why
			}
			if h.warm {
				info.Warm = append(info.Warm, m)
			} else {
				info.Resident = append(info.Resident, m)
			}
		}
	}
	return info, nil
}

// Pulse tells whether the device gets on with its work. It waits for nothing.
func (s *shelf[N]) Pulse() stage.Pulse {
	if d, ok := s.Device.(device.Active); ok {
		a := d.Activity()
		return stage.Pulse{Running: a.Running, Moved: a.Moved}
	}
	return stage.Pulse{}
}

// find gives a model's book, or why it has none.
func (s *shelf[N]) find(model string) (*book[N], error) {
	if _, err := s.Library.path(model); err != nil {
		return nil, err
	}
	b := s.books[model]
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
	if bytes, ok := b.resident(); ok {
		progress(bytes, bytes)
		return nil
	}
	if err := b.latch.Acquire(ctx, whole); err != nil {
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
	bytes := b.held.Load().bytes
	progress(bytes, bytes)
	return nil
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

// read opens the model's files anew, so that they are open only while they are read: by the load, or until the
// eviction if weights are streamed.
func (b *book[N]) read(ctx context.Context, s *shelf[N], limitBytes int64, progress func(done int64)) error {
	dir, err := s.dir(b.path)
	if err != nil {
		return err
	}
	net, err := s.open(dir)
	if err != nil {
		return err
	}
	streamed := s.limit(b, net.Manifest(), limitBytes)
	weights, err := s.Device.Load(ctx, net.Manifest(), net.Source(), progress)
	if err != nil || !streamed {
		err = errors.Join(err, net.Close())
	}
	if err != nil {
		if weights != nil {
			weights.Free()
		}
		return err
	}
	bytes := weights.Bytes()
	if b.store != nil {
		if err := b.store.open(s.Device, weights); err != nil {
			weights.Free()
			return errors.Join(err, net.Close())
		}
		bytes += b.store.bytes
	}
	b.net.Store(&net)
	b.weights = weights
	b.held.Store(&held{bytes: bytes})
	return nil
}

// Evict implements stage.Resident.
func (s *shelf[N]) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	b, ok := s.books[req.Model]
	if !ok {
		return stage.Evicted{}, nil // what nobody knows is not resident
	}
	if err := b.latch.Acquire(ctx, whole); err != nil {
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
	if req.Keep && b.stale.Load() == nil && (held.warm || s.keep(b)) {
		evicted.WarmBytes = held.bytes
		return evicted, nil
	}
	return evicted, s.drop(b)
}

// Settle implements stage.Resident.
func (s *shelf[N]) Settle(ctx context.Context, model string) error {
	b, ok := s.books[model]
	if !ok {
		return nil
	}
	if err := b.latch.Acquire(ctx, whole); err != nil {
		return err
	}
	b.latch.Release(whole)
	return nil
}

// Drain implements stage.Resident.
func (s *shelf[N]) Drain(ctx context.Context) error {
	s.draining.Store(true)
	for _, name := range s.Library.Names() {
		if err := s.Settle(ctx, name); err != nil {
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
	if b, err = s.find(model); err != nil {
		return nil, nil, err
	}
	if s.draining.Load() {
		return nil, nil, s.drainingError()
	}
	if err := b.latch.Acquire(ctx, 1); err != nil {
		return nil, nil, err
	}
	s.working.Add(1)
	done = func() {
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

// footprint is what running tape takes.
func (s *shelf[N]) footprint(b *book[N], tape *device.Tape, limitBytes int64) (stage.Footprint, error) {
	scratch, err := s.Device.ScratchBytes(tape)
	if err != nil {
		return stage.Footprint{}, s.fault(err)
	}
	return s.holding(b, limitBytes, scratch), nil
}

// holding is a footprint of a known scratch.
func (s *shelf[N]) holding(b *book[N], limitBytes, scratch int64) stage.Footprint {
	return stage.Footprint{WeightsBytes: s.limited(b, limitBytes), ScratchBytes: scratch, WholeBytes: b.component.WeightsBytes}
}
