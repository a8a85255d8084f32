package pipeline_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestReplicasChange: of the services behind a name, one that is listed while jobs wait takes the next within a look-up, and one
// that is gone in the middle of its work and no longer listed hands that over from its last checkpoint; images are the same.
func TestReplicasChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		var dns fleettest.DNS
		first, second := fleettest.At(kind, "10.0.2.1:7422"), fleettest.At(kind, "10.0.2.2:7422")
		encoder, decoder := fleettest.At(stage.KindEncoder, "10.0.1.1:7421"), fleettest.At(stage.KindDecoder, "10.0.3.1:7423")
		for _, s := range []*fleettest.Service{encoder, first, decoder} {
			s.Start()
		}
		dns.Set("encoder", "10.0.1.1")
		dns.Set("denoiser", "10.0.2.1")
		dns.Set("decoder", "10.0.3.1")
		r := over(fleettest.Named(t, &dns, encoder, first, second, decoder))
		r.Known(t)
		spec := r.spec(t)
		quiet := r.good(t, spec)

		held := first.Script.Hold(stagetest.OpDenoise, 8)
		cut := r.start(t.Context(), "cut", spec)
		<-held.Entered()
		waits := r.start(t.Context(), "waits", spec)
		time.Sleep(time.Minute) // of the bubble
		synctest.Wait()
		if n := len(second.Works("denoise")); n > 0 {
			t.Fatalf("a service that is not listed worked %d times", n)
		}
		second.Start()
		takes := second.Script.Hold(stagetest.OpDenoise, 1)
		dns.Set("denoiser", "10.0.2.1", "10.0.2.2")
		listed := time.Now()
		<-takes.Entered()
		if took := time.Since(listed); took > 1100*time.Millisecond {
			t.Errorf("it took %v until a service that is listed works", took)
		}
		takes.Release()
		if <-waits.done; waits.err != nil {
			t.Fatal(waits.err)
		}
		same(t, waits, quiet)

		dns.Set("denoiser", "10.0.2.2")
		if err := first.Stop(); err != nil {
			t.Error(err)
		}
		if <-cut.done; cut.err != nil {
			t.Fatal(cut.err)
		}
		same(t, cut, quiet)
		works := second.Works("denoise")
		if len(works) != 2 || works[1].Resume == nil || works[1].Resume.Step != r.CheckpointEveryNSteps || cut.warnings(pipeline.StageRestarted) != 1 {
			t.Errorf("the other one worked %d times, not once from the checkpoint; warnings %+v", len(works), only[pipeline.Warning](cut))
		}
		time.Sleep(5 * time.Second) // of the bubble
		synctest.Wait()
		for _, s := range r.Pipeline.Keeper.Snapshot().Stages {
			if s.Stage == residency.StageID(first.Address) {
				t.Error("the keeper still has the one that is gone")
			}
		}
		if all := r.Pipeline.Fleet.Services(); len(all) != 3 {
			t.Errorf("the fleet still has %+v", all)
		}
	})
}

// without has a service not know a model.
func without(s *fleettest.Service, model string) {
	s.Edit(func(i *stage.Info) {
		i.Models = slices.DeleteFunc(slices.Clone(i.Models), func(m stage.Model) bool { return m.Name == model })
		i.Components = slices.DeleteFunc(slices.Clone(i.Components), func(c stage.Component) bool { return c.Model == model })
	})
}

// TestPools: names of one kind may serve different models; a job goes to those that have its model, and waits for them alone.
func TestPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const kind = stage.KindDenoiser
		var dns fleettest.DNS
		tiny, small := fleettest.At(kind, "10.0.2.1:7422"), fleettest.At(kind, "10.0.4.1:7422")
		without(tiny, stagetest.OtherModel)
		without(small, stagetest.Model)
		encoder, decoder := fleettest.NewService(stage.KindEncoder, "encoder"), fleettest.NewService(stage.KindDecoder, "decoder")
		for _, s := range []*fleettest.Service{encoder, tiny, small, decoder} {
			s.Start()
		}
		dns.Set("tiny", "10.0.2.1")
		dns.Set("small", "10.0.4.1")
		r := over(fleettest.With(t, fleet.Options{Resolver: &dns, Addresses: map[stage.Kind][]string{
			stage.KindEncoder: {encoder.Address}, kind: {"dns:///tiny:7422", "dns:///small:7422"}, stage.KindDecoder: {decoder.Address},
		}}, encoder, tiny, small, decoder))
		r.Known(t)
		has := r.of(t, stagetest.Model)
		scaled := r.of(t, stagetest.OtherModel)
		r.good(t, has)
		quiet := r.good(t, scaled)
		if len(tiny.Works("denoise")) != 1 || len(small.Works("denoise")) != 1 {
			t.Fatalf("the pools worked %d and %d times", len(tiny.Works("denoise")), len(small.Works("denoise")))
		}
		dns.Set("small")
		if err := small.Stop(); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second) // of the bubble
		waits := r.start(t.Context(), "waits", r.of(t, stagetest.OtherModel))
		r.good(t, has)
		synctest.Wait()
		if q := only[pipeline.Queued](waits); len(q) == 0 || !strings.Contains(q[len(q)-1].Reason, "no address behind small:7422") {
			t.Errorf("it waits as %+v", q)
		}
		small.Start()
		dns.Set("small", "10.0.4.1")
		if <-waits.done; waits.err != nil {
			t.Fatal(waits.err)
		}
		same(t, waits, quiet)
	})
}
