package stagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

func (c contract[S]) testInfo(t *testing.T) {
	s, _ := c.Open(t)
	i := info(t, s)
	if i.Kind != c.kind {
		t.Errorf("Kind = %v, expected %v", i.Kind, c.kind)
	}
	if i.Host == "" || i.Device == "" {
		t.Errorf("Host = %q and Device = %q do not name a memory", i.Host, i.Device)
	}
	if !slices.IsSortedFunc(i.Models, func(a, b stage.Component) int { return strings.Compare(a.Model, b.Model) }) {
		t.Errorf("Models are not sorted by name: %v", i.Models)
	}
	if len(i.Resident) > 0 || i.UsedBytes != 0 || i.Draining {
		t.Errorf("a fresh stage holds %v, uses %d bytes, drains: %v", i.Resident, i.UsedBytes, i.Draining)
	}
	if m := find(t, s, c.Model); m.Problem != "" || m.WeightsBytes <= 0 {
		t.Errorf("model %q: problem %q, weights of %d bytes", c.Model, m.Problem, m.WeightsBytes)
	}
	if c.Broken != "" && find(t, s, c.Broken).Problem == "" {
		t.Errorf("model %q has no problem", c.Broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Info(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Info with a cancelled context: %v", err)
	}
}

func (c contract[S]) testPlan(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	f, err := s.Plan(ctx, c.plan)
	if err != nil {
		t.Fatalf("Plan: %v", err)
	}
	if weights := find(t, s, c.Model).WeightsBytes; f.WeightsBytes != weights || f.ScratchBytes <= 0 {
		t.Errorf("Plan = %+v, expected weights of %d bytes and some scratch", f, weights)
	}
	if i := info(t, s); len(i.Resident) > 0 || i.UsedBytes != 0 {
		t.Errorf("Plan made %v resident and uses %d bytes", i.Resident, i.UsedBytes)
	}
	more := c.plan
	more.Batch *= 2
	if g, err := s.Plan(ctx, more); c.kind != stage.KindDecoder && (err != nil || g.ScratchBytes < f.ScratchBytes || g.WeightsBytes != f.WeightsBytes) {
		t.Errorf("Plan of twice the batch = %+v, %v; of the batch %+v", g, err, f)
	}
	unknown := c.plan
	unknown.Model = nobody
	_, err = s.Plan(ctx, unknown)
	c.wantNotFound(t, "Plan", err)
	if c.Broken != "" {
		broken := c.plan
		broken.Model = c.Broken
		_, err = s.Plan(ctx, broken)
		want(t, "Plan of a broken model", err, stage.ModelInvalid)
	}
	for _, size := range [][2]int{{0, c.plan.LatentWidth}, {c.plan.LatentHeight, -8}, {1 << 40, 1 << 40}} {
		sized := c.plan
		sized.LatentHeight, sized.LatentWidth = size[0], size[1]
		g, err := s.Plan(ctx, sized)
		if c.kind == stage.KindEncoder {
			if err != nil || g != f {
				t.Errorf("Plan of an encoder does not ignore the size %v: %+v, %v", size, g, err)
			}
			continue
		}
		want(t, "Plan of a wrong size", err, stage.SizeUnsupported)
	}
	for _, batch := range []int{0, -1} {
		none := c.plan
		none.Batch = batch
		_, err = s.Plan(ctx, none)
		want(t, "Plan of no batch", err, stage.SizeUnsupported, stage.InvalidField)
	}
}

// progress records what Load reports and checks it.
type progress struct{ loaded, total []int64 }

func (p *progress) add(loaded, total int64) {
	p.loaded, p.total = append(p.loaded, loaded), append(p.total, total)
}

func (p *progress) check(t *testing.T) {
	t.Helper()
	n := len(p.loaded)
	if n == 0 {
		return
	}
	if !slices.IsSorted(p.loaded) || p.loaded[0] < 0 || slices.Min(p.total) != slices.Max(p.total) || p.loaded[n-1] != p.total[n-1] {
		t.Errorf("progress is not monotone, or does not end at the total: %v of %v", p.loaded, p.total)
	}
}

func (c contract[S]) testLoad(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	for _, again := range []bool{false, true} {
		var (
			p    progress
			told stage.Edition
		)
		if err := s.Load(ctx, stage.LoadRequest{Model: c.Model, Edition: func(e stage.Edition) { told = e }}, p.add); err != nil {
			t.Fatalf("Load (again: %v): %v", again, err)
		}
		if want := find(t, s, c.Model).Edition; told != want {
			t.Errorf("Load (again: %v) told of edition %+v, Info of %+v", again, told, want)
		}
		p.check(t)
		if !again && len(p.loaded) == 0 {
			t.Errorf("Load made no progress")
		}
		i := info(t, s)
		same(t, "resident models", i.Resident, []stage.ResidentModel{{Model: c.Model, WeightsBytes: find(t, s, c.Model).WeightsBytes}})
		if w := i.Resident[0].WeightsBytes; i.UsedBytes < w || i.PeakBytes < i.UsedBytes {
			t.Errorf("weights of %d bytes, but used %d and peak %d", w, i.UsedBytes, i.PeakBytes)
		}
	}
	if err := s.Load(ctx, stage.LoadRequest{Model: c.Model, Generation: info(t, s).Generation}, nil); err != nil {
		t.Errorf("Load for the present generation, without progress: %v", err)
	}
}

// A limit is kept to, by Plan as by Load; what is resident already stays as it is; results are the same.
func (c contract[S]) testLoadLimited(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	whole, err := s.Plan(ctx, c.plan)
	if err != nil || whole.WholeBytes != whole.WeightsBytes {
		t.Fatalf("Plan = %+v, %v", whole, err)
	}
	plan := func(limit int64) stage.Footprint {
		t.Helper()
		req := c.plan
		req.LimitBytes = limit
		f, err := s.Plan(ctx, req)
		if err != nil || f.ScratchBytes != whole.ScratchBytes || f.WholeBytes != whole.WeightsBytes {
			t.Fatalf("Plan within %d = %+v, %v; without a limit %+v", limit, f, err, whole)
		}
		return f
	}
	load := func(limit int64) { // and work, and evict
		t.Helper()
		planned := plan(limit)
		var p progress
		if err := s.Load(ctx, stage.LoadRequest{Model: c.Model, LimitBytes: limit}, p.add); err != nil {
			t.Fatalf("Load within %d: %v", limit, err)
		}
		p.check(t)
		if p.total[0] != planned.WeightsBytes {
			t.Errorf("progress within %d is of %d bytes, planned %+v", limit, p.total[0], planned)
		}
		i := info(t, s)
		same(t, "resident models", i.Resident, []stage.ResidentModel{{Model: c.Model, WeightsBytes: planned.WeightsBytes}})
		if i.UsedBytes != planned.WeightsBytes {
			t.Errorf("%d bytes are used within %d, planned %+v", i.UsedBytes, limit, planned)
		}
	}
	evict := func(want int64) {
		t.Helper()
		if e, err := c.evict(ctx, s); err != nil || e != (stage.Evicted{FreedBytes: want}) {
			t.Errorf("Evict = %+v, %v; want %d freed", e, err, want)
		}
	}
	load(0)
	result, err := c.work(ctx, s, c.Model)
	if err != nil {
		t.Fatal(err)
	}
	evict(whole.WeightsBytes)
	load(whole.WeightsBytes)
	evict(whole.WeightsBytes)

	least := plan(1)
	if least.WeightsBytes >= whole.WeightsBytes {
		t.Fatalf("the least is %+v, all %+v", least, whole)
	}
	last := least.WeightsBytes
	for i := range int64(5) {
		limit := least.WeightsBytes + i*(whole.WeightsBytes-1-least.WeightsBytes)/4
		f := plan(limit)
		if f.WeightsBytes > limit || plan(f.WeightsBytes) != f || f.WeightsBytes < least.WeightsBytes {
			t.Errorf("Plan within %d = %+v, within that %+v", limit, f, plan(f.WeightsBytes))
		}
		last = max(last, f.WeightsBytes)
		load(limit)
		got, err := c.work(ctx, s, c.Model)
		if err != nil {
			t.Fatalf("work within %d: %v", limit, err)
		}
		same(t, "results of limited and whole weights", got, result)
		if err := s.Load(ctx, stage.LoadRequest{Model: c.Model}, nil); err != nil {
			t.Errorf("Load of what is resident: %v", err)
		}
		evict(f.WeightsBytes)
	}
	if last == least.WeightsBytes {
		t.Errorf("no limit keeps more than the least, %d bytes", last)
	}
	e := want(t, "Load within too small a limit", s.Load(ctx, stage.LoadRequest{Model: c.Model, LimitBytes: least.WeightsBytes - 1}, nil), stage.ModelDoesNotFit)
	if e.Metadata["needed_bytes"] != fmt.Sprint(least.WeightsBytes) {
		t.Errorf("metadata of too small a limit: %v", e.Metadata)
	}
	if i := info(t, s); len(i.Resident) > 0 || i.UsedBytes != 0 {
		t.Errorf("a refused load leaves %v resident and %d bytes used", i.Resident, i.UsedBytes)
	}
}

func (c contract[S]) testLoadRefused(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	c.wantNotFound(t, "Load", s.Load(ctx, stage.LoadRequest{Model: nobody}, nil))
	if c.Broken != "" {
		want(t, "Load of a broken model", s.Load(ctx, stage.LoadRequest{Model: c.Broken}, nil), stage.ModelInvalid)
	}
	if c.TooLarge != "" {
		e := want(t, "Load of too large a model", s.Load(ctx, stage.LoadRequest{Model: c.TooLarge}, nil), stage.ModelDoesNotFit)
		for _, key := range []string{"stage", "needed_bytes", "available_bytes", "budget_bytes"} {
			if e.Metadata[key] == "" {
				t.Errorf("metadata %s is missing: %v", key, e.Metadata)
			}
		}
	}
	if i := info(t, s); len(i.Resident) > 0 || i.UsedBytes != 0 {
		t.Errorf("refused loads leave %v resident and %d bytes used", i.Resident, i.UsedBytes)
	}
}

func (c contract[S]) testLoadTogether(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	together(4, func(int) {
		var p progress
		if err := s.Load(ctx, stage.LoadRequest{Model: c.Model}, p.add); err != nil {
			t.Errorf("Load: %v", err)
		}
		p.check(t)
	})
	if i := info(t, s); len(i.Resident) != 1 {
		t.Errorf("resident after loads at once: %v", i.Resident)
	}
	e, err := c.evict(ctx, s)
	if err != nil || e.FreedBytes <= 0 {
		t.Errorf("Evict = %+v, %v", e, err)
	}
	if i := info(t, s); i.UsedBytes != 0 {
		t.Errorf("loads at once left %d bytes behind", i.UsedBytes)
	}
}

func (c contract[S]) testLoadCancelled(t *testing.T) {
	s, script := c.Open(t)
	ctx, cancel := context.WithCancel(patient(t))
	if script != nil {
		gate := script.Hold(OpLoad, 2)
		t.Cleanup(gate.Release)
		go func() {
			<-gate.Entered()
			cancel()
		}()
	} else {
		cancel()
	}
	if err := s.Load(ctx, stage.LoadRequest{Model: c.Model}, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("Load that was cancelled: %v", err)
	}
	// The stage may still be giving the memory back; Evict waits for that.
	if e, err := c.evict(patient(t), s); err != nil || e != (stage.Evicted{}) {
		t.Errorf("Evict after a cancelled load = %+v, %v", e, err)
	}
	if i := info(t, s); len(i.Resident) > 0 || i.UsedBytes != 0 {
		t.Errorf("a cancelled load leaves %v resident and %d bytes used", i.Resident, i.UsedBytes)
	}
	if err := s.Load(patient(t), stage.LoadRequest{Model: c.Model}, nil); err != nil {
		t.Errorf("Load after a cancelled one: %v", err)
	}
}

// testLoadSettles: Evict and Settle wait for a load that goes on although its caller has gone, and then nothing of it is left.
func (c contract[S]) testLoadSettles(t *testing.T) {
	s, script := c.Open(t)
	if script == nil {
		t.Skip("the stage follows no script")
	}
	gate := script.Stall(OpLoad, 2)
	t.Cleanup(gate.Release)
	loading, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Load(loading, stage.LoadRequest{Model: c.Model}, nil) }()
	await(t, "the load to begin", gate.Entered())
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), glimpse)
	defer cancel()
	if err := s.Settle(ctx, c.Model); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Settle did not wait for a cancelled load: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), glimpse)
	defer cancel()
	if _, err := c.evict(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Evict did not wait for a cancelled load: %v", err)
	}
	gate.Release()
	if e, err := c.evict(patient(t), s); err != nil || e != (stage.Evicted{}) {
		t.Errorf("Evict after a cancelled load = %+v, %v", e, err)
	}
	if used := info(t, s).UsedBytes; used != 0 {
		t.Errorf("%d bytes are used when a cancelled load has been evicted", used)
	}
	if err := await(t, "the load to end", done); !errors.Is(err, context.Canceled) {
		t.Errorf("the load that was cancelled: %v", err)
	}
}

func (c contract[S]) testEvict(t *testing.T) {
	s, _ := c.loaded(t)
	ctx := patient(t)
	weights := find(t, s, c.Model).WeightsBytes
	e, err := c.evict(ctx, s)
	if err != nil || e.FreedBytes < weights || e.WarmBytes != 0 {
		t.Errorf("Evict = %+v, %v; expected at least the weights, %d bytes, and nothing warm", e, err, weights)
	}
	if i := info(t, s); len(i.Resident) > 0 || i.UsedBytes != 0 {
		t.Errorf("after Evict %v is resident and %d bytes are used", i.Resident, i.UsedBytes)
	}
	for _, model := range []string{c.Model, nobody} {
		for _, keep := range []bool{false, true} {
			if e, err := s.Evict(ctx, stage.EvictRequest{Model: model, Keep: keep}); err != nil || e != (stage.Evicted{}) {
				t.Errorf("Evict of %q, which is not resident = %+v, %v", model, e, err)
			}
		}
	}
	if err := s.Load(ctx, stage.LoadRequest{Model: c.Model}, nil); err != nil {
		t.Errorf("Load after Evict: %v", err)
	}
}

func (c contract[S]) testEvictWaits(t *testing.T) {
	s, _, gate := c.held(t)
	done := c.start(patient(t), s)
	await(t, "the work to begin", gate.Entered())
	ctx, cancel := context.WithTimeout(t.Context(), glimpse)
	defer cancel()
	if e, err := c.evict(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Evict did not wait for running work: %+v, %v", e, err)
	}
	gate.Release()
	if o := await(t, "the work to end", done); o.err != nil {
		t.Errorf("the work that Evict waited for: %v", o.err)
	}
	if _, err := c.evict(patient(t), s); err != nil {
		t.Errorf("Evict: %v", err)
	}
	if i := info(t, s); holds(i, c.Model) || i.UsedBytes != 0 {
		t.Errorf("after Evict %v is resident and %d bytes are used", i.Resident, i.UsedBytes)
	}
}
