package stagetest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// testSet: work needs all of its components, which are loaded and evicted one by one; their limits follow from that of the plan.
func (c contract) testSet(t *testing.T) {
	s, _ := c.Open(t)
	ctx := patient(t)
	whole, least := c.within(t, s, 0), c.within(t, s, 1)
	limit := (whole.WeightsBytes() + least.WeightsBytes()) / 2
	some := c.within(t, s, limit)
	if some.WeightsBytes() > limit || some.WeightsBytes() < least.WeightsBytes() || some.WholeBytes() != whole.WeightsBytes() {
		t.Errorf("Plan within %d = %+v; the least is %+v, all %+v", limit, some, least, whole)
	}
	var results []stage.Result
	for _, f := range []stage.Footprint{whole, some, least} {
		for i, w := range f.Weights {
			if w.Component != c.Request.Components[i] {
				t.Fatalf("Plan tells of %s in the place of %s", w.Component, c.Request.Components[i])
			}
			refuses(t, s, c.Request, "work without "+w.Component, stage.StageEvicted)
			limit := w.Bytes
			if w.Bytes == w.WholeBytes {
				limit = 0
			}
			if err := s.Load(ctx, stage.LoadRequest{Component: w.Component, LimitBytes: limit}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if used := taken(info(t, s)); used != f.WeightsBytes() {
			t.Errorf("%d bytes are used, planned %+v", used, f)
		}
		results = append(results, works(t, s, c.Request))
		last := len(c.Request.Components) - 1
		for _, components := range [][]string{c.Request.Components[last:], slices.Insert(slices.Clone(c.Request.Components[:last]), 0, c.Request.Components[last])} {
			req := c.Request
			req.Components = components
			refuses(t, s, req, fmt.Sprintf("work with %v", components), stage.InvalidField)
		}
		for _, w := range slices.Backward(f.Weights) {
			evicts(t, s, w.Component, false, w.Bytes, 0)
			refuses(t, s, c.Request, "work without "+w.Component, stage.StageEvicted)
		}
	}
	for _, r := range results[1:] {
		same(t, "results of limited and whole weights", r, results[0])
	}
	empty(t, s)
}

// testSetWaits: work holds every component of its set.
func (c contract) testSetWaits(t *testing.T) {
	s := c.underway(t, func(s stage.Stage) {
		for _, name := range c.Request.Components {
			waits(t, "Settle of "+name, "work with it", func(ctx context.Context) error { return s.Settle(ctx, name) })
			waits(t, "Evict of "+name, "work with it", evicting(s, stage.EvictRequest{Component: name}))
		}
	})
	c.evict(t, s)
	empty(t, s)
}
