package pipeline_test

import (
	"testing"
	"testing/synctest"
	"time"

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
