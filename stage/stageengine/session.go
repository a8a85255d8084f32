package stageengine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/inversion"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

// MaxImageScratch is the most scratch that an image takes: one that needs more (from about 384x384 with the autoencoder of
// Stable Diffusion) is computed in bands, in some 30 MB and a third more time (measured at 512x512), and leaves the memory to the stages
// that would have to be evicted for it.
const MaxImageScratch = 256 << 20

// Work implements stage.Stage.
func (s *Stage) Work(ctx context.Context, req stage.WorkRequest, observer stage.Observer) (stage.Result, error) {
	for field, n := range map[string]int{"preview_every_n_steps": req.PreviewEveryNSteps, "checkpoint_every_n_steps": req.CheckpointEveryNSteps} {
		if n < 0 {
			return stage.Result{}, stage.Invalid(stage.InvalidField, field, n, "a number of steps, or 0 for none")
		}
	}
	books, err := s.found(req.Components)
	if err != nil {
		return stage.Result{}, err
	}
	if _, _, _, err := s.turnOf(books, req.Turn, req.Options, req.Values.Has); err != nil {
		return stage.Result{}, err
	}
	books, done, err := s.use(ctx, req.Components)
	if err != nil {
		return stage.Result{}, err
	}
	defer done()
	recipe, t, turn, err := s.turnOf(books, req.Turn, req.Options, req.Values.Has) // of the files that are resident
	if err != nil {
		return stage.Result{}, err
	}
	if req.Options, err = recipe.Complete(t.Options, req.Options); err != nil {
		return stage.Result{}, err
	}
	if err := stage.Check(t.Takes, req.Values); err != nil {
		return stage.Result{}, err
	}
	out, err := turn.Work(ctx, session{s, books}, req, observer)
	var told *stage.Error
	if err != nil && !errors.As(err, &told) && !isContext(err) {
		return stage.Result{}, s.fault(err)
	}
	return out, err
}

// turnOf is a turn that components are for. They are of any models, since equal components are one: those that differ in their
// weights alone serve as each other. Options choose what is in slots; has tells of the turn's values, nil in plans.
func (s *Stage) turnOf(books []*book, name string, options stage.Options, has func(string) bool) (stage.Recipe, stage.Turn, family.Turn, error) {
	var components, known []string
	of := map[string]*book{}
	for _, b := range books {
		components, of[b.component.Name] = append(components, b.component.Name), b
	}
	same := func(component, member string) bool {
		b := s.book(member)
		return component == member || b != nil && b.settings != "" && b.settings == of[component].settings
	}
	for _, m := range append([]*model{books[0].of}, s.known()...) {
		if m.files == nil {
			continue
		}
		for _, recipe := range m.files.Recipes {
			recipe = recipe.Choose(options, s.adapts)
			t, ok := recipe.Turn(name)
			if ok && t.WorksWith(components, has, same) {
				return recipe, t, m.files.Turns[name], s.unknown(recipe, t, options)
			}
		}
	}
	for _, recipe := range books[0].of.files.Recipes {
		for _, t := range recipe.Choose(options, s.adapts).Turns {
			known = append(known, t.Name+" ("+strings.Join(t.Components(), ", ")+")")
		}
	}
	accepted := "one of " + strings.Join(known, ", ")
	if len(known) == 0 {
		accepted = "a component of a model that has turns first"
	}
	return stage.Recipe{}, stage.Turn{}, family.Turn{}, stage.Invalid(stage.InvalidField, "turn", name+" ("+strings.Join(components, ", ")+")", accepted)
}

// adapts reports whether a model is an adapter that has a part here.
func (s *Stage) adapts(model, part string) bool { return s.Adapter(model+"/"+part) != "" }

// Adapter is the kind of adapter that a component is of, empty of a model to draw with and of what is not known.
func (s *Stage) Adapter(component string) string {
	if b := s.book(component); b != nil {
		return b.of.files.Adapter
	}
	return ""
}

// unknown refuses an adapter that an option of a turn names and that is none here: work would take it for one that has no part in it.
func (s *Stage) unknown(r stage.Recipe, t stage.Turn, options stage.Options) error {
	for _, name := range t.Options {
		spec, _ := r.Option(name)
		if spec.Adapter == "" {
			continue
		}
		for _, c := range options.Chosen(name) {
			if m := s.model(c.Name); m == nil || m.files == nil || m.files.Adapter != spec.Adapter {
				return stage.Invalid(stage.InvalidField, name, c.Name, fmt.Sprintf("a model of kind %s that the %v knows", spec.Adapter, s.kind))
			}
		}
	}
	return nil
}

// found gives the books of components, which are one or more.
func (s *Stage) found(components []string) (books []*book, err error) {
	if len(components) == 0 {
		return nil, stage.Invalid(stage.InvalidField, "components", "none", "one or more")
	}
	for _, name := range components {
		b, err := s.find(name)
		if err != nil {
			return nil, err
		}
		books = append(books, b)
	}
	return books, nil
}

// use gives the books of resident components to work with; the caller must call done.
func (s *Stage) use(ctx context.Context, components []string) (books []*book, done func(), err error) {
	s.working.Add(1)
	done = func() {
		for _, b := range books {
			if b.held.Load() != nil {
				b.identify() // streamed weights have been read by now
			}
			b.latch.Release(1)
		}
		s.working.Add(-1)
	}
	for _, name := range components {
		b, err := s.hold(ctx, name)
		if b != nil {
			books = append(books, b)
		}
		if err != nil {
			done()
			return nil, nil, err
		}
	}
	return books, done, nil
}

// hold gives the book of a component, with 1 of its latch held, be it with an error that it is not resident.
func (s *Stage) hold(ctx context.Context, component string) (*book, error) {
	var b *book
	for b == nil { // it may be gone as soon as it is found: then find says so
		_, err := s.find(component)
		if err == nil && s.draining.Load() {
			err = s.drainingError()
		}
		if err == nil {
			b, err = s.latched(ctx, component, 1)
		}
		if err != nil {
			return nil, err
		}
	}
	if _, ok := b.resident(); !ok {
		return b, stage.Errorf(stage.StageEvicted, "the %v does not hold component %q: load it first", s.kind, component).
			With("stage", s.kind.String()).With("model", b.component.Model).With("component", component)
	}
	return b, nil
}

// session is a family.Session.
type session struct {
	*Stage
	books []*book
}

// Network implements family.Session.
func (s session) Network(member int) family.Network { return s.books[member].network() }

// Beside implements family.Session.
func (s session) Beside(member int) *family.Store { return s.books[member].store }

// Start implements family.Session.
func (s session) Start(r family.Run) (device.Run, error) {
	b := s.books[r.Member]
	var further []device.Weights
	for _, i := range r.With {
		further = append(further, s.books[i].weights)
	}
	run, err := s.Device.NewRun(r.Tape, b.weights, s.limits(r, s.books), further...)
	if err != nil {
		return nil, s.runError(err, b, 0)
	}
	return run, nil
}

// Failed implements family.Session.
func (s session) Failed(r family.Run, run device.Run, err error) error {
	return s.runError(err, s.books[r.Member], run.Bytes())
}

// Embeddings implements family.Session.
func (s session) Embeddings() []*inversion.Inversion { return s.Library.Embeddings() }

// NotFinite implements family.Session: a bit in memory may have flipped, which reading the weights anew cures.
func (s session) NotFinite(member int, what string) error {
	b := s.books[member]
	b.distrust("it gave " + what + " that are not finite")
	return stage.Errorf(stage.NotFinite, "the %v of model %q gave %s that are not finite", s.kind, b.component.Model, what).
		With("stage", s.kind.String()).With("model", b.component.Model)
}

// limits are those of a run, with its compute type. Runs of images take no more scratch than MaxImageScratch, nor than what the device's
// budget leaves beside the weights of the turn: of all weights, however few are held, so that Plan and Work agree whatever
// was loaded.
func (s *Stage) limits(r family.Run, books []*book) device.RunOptions {
	o := device.RunOptions{Compute: s.Compute[s.kind]}
	if !r.Image {
		return o
	}
	limit := int64(MaxImageScratch)
	if budget := s.Device.Memory().CapBytes; budget > 0 {
		budget -= s.Device.OverheadBytes()
		for _, b := range books {
			budget -= b.component.WeightsBytes
		}
		limit = min(limit, max(1, budget))
	}
	o.ScratchLimit = limit
	return o
}

// Plan implements stage.Resident.
func (s *Stage) Plan(_ context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	o, err := s.Outlook(req)
	if err != nil || o.Footprint.SpillBytes == 0 {
		return o.Footprint, err
	}
	if err := s.Device.CheckSpill(o.Footprint.SpillBytes); err != nil {
		return stage.Footprint{}, s.runError(err, nil, o.Footprint.ScratchBytes)
	}
	return o.Footprint, nil
}

// Outlook is how a turn would be taken, for plans that tell more than its footprint.
type Outlook struct {
	Footprint stage.Footprint // wherever the disk has room for it
	Members   []Member
	Runs      []family.Run
	Limits    []device.RunOptions // of the runs
}

// Member is a component of a turn.
type Member struct {
	family.Component
	Network family.Network
	Runs    []family.Run    // of it
	Beside  int64           // bytes of what is held with the weights
	Held    device.LoadPlan // of a load within the plan's limit
	Told    []string        // warnings, see stage.Component
}

// Outlook plans a turn. The error is that of Plan, but for the disk's.
func (s *Stage) Outlook(req stage.PlanRequest) (Outlook, error) {
	books, err := s.found(req.Components)
	if err != nil {
		return Outlook{}, err
	}
	nets := make([]family.Network, len(books))
	for i, b := range books {
		nets[i] = b.network()
	}
	recipe, t, turn, err := s.turnOf(books, req.Turn, req.Options, nil)
	if err != nil {
		return Outlook{}, err
	}
	options, err := recipe.Complete(recipe.ShapeNames(t), req.Options)
	if err != nil {
		return Outlook{}, err
	}
	var o Outlook
	if o.Runs, err = turn.Runs(nets, options); err != nil {
		if refused := (*stage.Error)(nil); errors.As(err, &refused) {
			return Outlook{}, refused
		}
		return Outlook{}, s.fault(err)
	}
	for i, limit := range s.shares(books, req.LimitBytes) {
		b, m := books[i], nets[i].Files().Manifest()
		held, _ := s.loadPlan(b, m, limit)
		o.Members = append(o.Members, Member{Component: *b.part, Network: nets[i], Beside: b.store.Bytes(), Held: held, Told: b.component.Warnings})
		o.Footprint.Weights = append(o.Footprint.Weights, stage.Weights{
			Component: b.component.Name, Bytes: s.Device.WeightBytes(m, held) + b.store.Bytes(), WholeBytes: b.component.WeightsBytes,
		})
	}
	taken := make([]int64, len(o.Runs))
	for i, r := range o.Runs {
		limits := s.limits(r, books)
		scratch, spill, err := r.AtLeast, int64(0), error(nil)
		member := &o.Members[r.Member]
		member.Runs = append(member.Runs, r)
		if r.Tape != nil {
			scratch, err = s.Device.ScratchBytes(r.Tape, limits)
			if err == nil {
				spill, err = s.Device.SpillBytes(r.Tape, limits)
			}
		}
		if err != nil {
			return Outlook{}, s.fault(err)
		}
		o.Limits = append(o.Limits, limits)
		taken[i], o.Footprint.SpillBytes = scratch, max(o.Footprint.SpillBytes, spill)
	}
	o.Footprint.ScratchBytes = family.AtOnce(o.Runs, taken)
	return o, nil
}

// shares divides the limit of a turn's weights among its components: each has the least that it needs, and beyond that the smaller ones
// have all first, so that the largest is streamed. 0 is no limit.
func (s *Stage) shares(books []*book, limit int64) []int64 {
	out := make([]int64, len(books))
	if limit == 0 {
		return out
	}
	order := make([]int, len(books))
	for i, b := range books {
		order[i], out[i] = i, s.limited(b, 1)
		limit -= out[i]
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Compare(books[i].component.WeightsBytes, books[j].component.WeightsBytes)
	})
	for _, i := range order {
		least := out[i]
		out[i] = least + max(0, limit)
		limit -= s.limited(books[i], out[i]) - least
	}
	return out
}
