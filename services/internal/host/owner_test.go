package host

import (
	"context"
	"testing"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func as(t *testing.T, id string) context.Context {
	return stage.WithCaller(t.Context(), stage.Caller{Orchestrator: id})
}

// TestOwner: a service works for the first orchestrator that it hears of until that is silent.
func TestOwner(t *testing.T) {
	hand := newFakeTime()
	e := Encoder{open(t, options(stage.KindEncoder), hand.clock())}
	load(t, e) // nobody owns it yet
	if _, err := e.Info(as(t, "a")); err != nil {
		t.Fatal(err)
	}
	refused := func(ctx context.Context) map[string]error {
		_, evict := e.Evict(ctx, stage.EvictRequest{Model: stagetest.Model})
		_, encode := e.Encode(ctx, encodeRequest())
		return map[string]error{"Load": e.Load(ctx, stage.LoadRequest{Model: stagetest.Model}, nil), "Evict": evict, "Encode": encode}
	}
	hand.advance(ownerSilence - 1)
	for _, id := range []string{"b", ""} {
		for call, err := range refused(as(t, id)) {
			if stage.ReasonOf(err) != stage.StageOwned {
				t.Errorf("%s by %q: %v", call, id, err)
			}
		}
	}
	if _, err := e.Info(as(t, "b")); stage.ReasonOf(err) != stage.StageOwned {
		t.Errorf("Info by another orchestrator: %v", err)
	}
	if _, err := e.Info(t.Context()); err != nil {
		t.Errorf("Info by somebody: %v", err)
	}
	if _, err := e.Encode(as(t, "a"), encodeRequest()); err != nil { // and is heard of
		t.Errorf("Encode by the owner: %v", err)
	}
	hand.advance(ownerSilence - 1)
	if _, err := e.Info(as(t, "b")); stage.ReasonOf(err) != stage.StageOwned {
		t.Errorf("Info by another orchestrator: %v", err)
	}
	hand.advance(1)
	if info, err := e.Info(as(t, "b")); err != nil || len(info.Resident) != 1 {
		t.Errorf("Info by the one that takes over: %+v, %v", info, err)
	}
	if _, err := e.Info(as(t, "a")); stage.ReasonOf(err) != stage.StageOwned {
		t.Errorf("Info by the one before: %v", err)
	}
}

// TestTakeover: work of an orchestrator that is silent is cut when another takes over.
func TestTakeover(t *testing.T) {
	hand := newFakeTime()
	d := Denoiser{open(t, options(stage.KindDenoiser, scriptKey+"=hold denoise 2"), hand.clock())}
	if err := d.Load(as(t, "a"), stage.LoadRequest{Model: stagetest.Model}, nil); err != nil {
		t.Fatal(err)
	}
	begun, result := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := d.Denoise(as(t, "a"), stagetest.DenoiseRequest(), stage.DenoiseObserver{Progress: func(done, _ int) {
			if done == 1 {
				close(begun)
			}
		}})
		result <- err
	}()
	<-begun
	hand.advance(ownerSilence)
	if evicted, err := d.Evict(as(t, "b"), stage.EvictRequest{Model: stagetest.Model}); err != nil || evicted.FreedBytes == 0 {
		t.Errorf("Evict by the one that takes over: %+v, %v", evicted, err)
	}
	if err := <-result; stage.ReasonOf(err) != stage.StageOwned {
		t.Errorf("work of the one before: %v", err)
	}
}
