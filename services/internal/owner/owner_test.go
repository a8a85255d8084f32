package owner

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hand is a clock that stands still.
type hand struct {
	mu sync.Mutex
	at time.Time
}

func (h *hand) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *hand) advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = h.at.Add(d)
}

// owned serves a fake denoiser behind an ownership.
func owned(t *testing.T, only, script string) (stage.Stage, *hand) {
	t.Helper()
	var h hand
	log := slog.New(slog.DiscardHandler)
	o := New(Options{Kind: stage.KindDenoiser, Only: only, Logger: log, Now: h.now})
	s, err := stagetest.ParseScript(script)
	if err != nil {
		t.Fatal(err)
	}
	conn := stagetest.Connect(t, func(r grpc.ServiceRegistrar) {
		stagerpc.Register(r, stage.KindDenoiser, stagetest.New(stage.KindDenoiser, s), log)
	},
		grpc.ChainUnaryInterceptor(o.Unary), grpc.ChainStreamInterceptor(o.Stream))
	return stagerpc.New(conn, stage.KindDenoiser), &h
}

var unet = stagetest.Component(stage.KindDenoiser, stagetest.Model)

func as(t *testing.T, id string) context.Context {
	return stage.WithCaller(t.Context(), stage.Caller{Orchestrator: id})
}

// leaves is the last look of an orchestrator that goes away.
func leaves(t *testing.T, d stage.Stage, id string) {
	t.Helper()
	_, err := d.Info(stage.WithCaller(t.Context(), stage.Caller{Orchestrator: id, Leaving: true}))
	if err != nil {
		t.Fatal(err)
	}
}

func load(ctx context.Context, d stage.Stage) error {
	return d.Load(ctx, stage.LoadRequest{Component: unet}, nil)
}

// calls makes one call of each method but Info.
func calls(ctx context.Context, d stage.Stage) map[string]error {
	_, plan := d.Plan(ctx, stage.PlanRequest{Turn: "denoise", Components: []string{unet}})
	_, evict := d.Evict(ctx, stage.EvictRequest{Component: unet})
	_, work := d.Work(ctx, stagetest.Request(stage.KindDenoiser), stage.Observer{})
	return map[string]error{
		"Plan": plan, "Load": load(ctx, d), "Evict": evict, "Work": work, "Settle": d.Settle(ctx, unet),
		"Drain": d.Drain(ctx), "Undrain": d.Undrain(ctx),
	}
}

// TestOwner: a service works for the first orchestrator that it hears of until that is silent.
func TestOwner(t *testing.T) {
	d, hand := owned(t, "", "")
	if err := load(t.Context(), d); err != nil { // nobody owns it yet
		t.Fatal(err)
	}
	if _, err := d.Info(as(t, "a")); err != nil {
		t.Fatal(err)
	}
	hand.advance(Silence - 1)
	for _, id := range []string{"b", "", "aa"} {
		for call, err := range calls(as(t, id), d) {
			if stage.ReasonOf(err) != stage.StageOwned {
				t.Errorf("%s by %q: %v", call, id, err)
			}
		}
	}
	if _, err := d.Info(as(t, "b")); stage.ReasonOf(err) != stage.StageOwned {
		t.Errorf("Info by another orchestrator: %v", err)
	}
	if info, err := d.Info(t.Context()); err != nil || info.Draining {
		t.Errorf("Info by somebody: %+v, %v", info, err)
	}
	if err := load(as(t, "a"), d); err != nil { // and is heard of
		t.Errorf("Load by the owner: %v", err)
	}
	hand.advance(Silence - 1)
	if _, err := d.Info(as(t, "b")); stage.ReasonOf(err) != stage.StageOwned {
		t.Errorf("Info by another orchestrator: %v", err)
	}
	hand.advance(1)
	if info, err := d.Info(as(t, "b")); err != nil || len(info.Resident) != 1 {
		t.Errorf("Info by the one that takes over: %+v, %v", info, err)
	}
	if _, err := d.Info(as(t, "a")); stage.ReasonOf(err) != stage.StageOwned {
		t.Errorf("Info by the one before: %v", err)
	}
}

// TestOnly: a service that was told whom it works for works for nobody else, heard of or not.
func TestOnly(t *testing.T) {
	d, hand := owned(t, "a", "")
	for range 2 {
		for _, id := range []string{"b", ""} {
			for call, err := range calls(as(t, id), d) {
				if stage.ReasonOf(err) != stage.StageOwned {
					t.Errorf("%s by %q: %v", call, id, err)
				}
			}
		}
		if _, err := d.Info(as(t, "b")); stage.ReasonOf(err) != stage.StageOwned {
			t.Errorf("Info by another orchestrator: %v", err)
		}
		if _, err := d.Info(as(t, "a")); err != nil {
			t.Errorf("Info by the owner: %v", err)
		}
		hand.advance(2 * Silence)
	}
}

// TestLeaving: an orchestrator that goes away gives its services back at once, and nobody else can for it.
func TestLeaving(t *testing.T) {
	d, _ := owned(t, "", "")
	if err := load(as(t, "a"), d); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"b", ""} {
		_, _ = d.Info(stage.WithCaller(t.Context(), stage.Caller{Orchestrator: id, Leaving: true}))
	}
	if _, err := d.Info(as(t, "b")); stage.ReasonOf(err) != stage.StageOwned {
		t.Errorf("others have made the owner leave: %v", err)
	}
	leaves(t, d, "a")
	if info, err := d.Info(as(t, "b")); err != nil || len(info.Resident) != 1 {
		t.Errorf("Info by the next one: %+v, %v", info, err)
	}
}

// TestTakeover: work of an orchestrator that is silent, or leaves, is cut.
func TestTakeover(t *testing.T) {
	for name, over := range map[string]func(stage.Stage, *hand){
		"silent": func(_ stage.Stage, h *hand) { h.advance(Silence) },
		"leaves": func(d stage.Stage, _ *hand) { leaves(t, d, "a") },
	} {
		t.Run(name, func(t *testing.T) {
			d, hand := owned(t, "", "hold denoise 2")
			if err := load(as(t, "a"), d); err != nil {
				t.Fatal(err)
			}
			begun, result := make(chan struct{}), make(chan error, 1)
			go func() {
				_, err := d.Work(as(t, "a"), stagetest.Request(stage.KindDenoiser), stage.Observer{Progress: func(done, _ int) {
					if done == 1 {
						close(begun)
					}
				}})
				result <- err
			}()
			<-begun
			over(d, hand)
			if evicted, err := d.Evict(as(t, "b"), stage.EvictRequest{Component: unet}); err != nil || evicted.FreedBytes == 0 {
				t.Errorf("Evict by the one that takes over: %+v, %v", evicted, err)
			}
			if err := <-result; stage.ReasonOf(err) != stage.StageOwned {
				t.Errorf("work of the one before: %v", err)
			}
		})
	}
}

// TestStandbyLooks: who stands by hears whether the service is owned, and by whom, and neither claims it nor counts as its owner.
func TestStandbyLooks(t *testing.T) {
	d, hand := owned(t, "", "")
	stands := func(rank stage.Rank) error {
		_, err := d.Info(stage.WithCaller(t.Context(), stage.Caller{Orchestrator: "b", Rank: rank, Standby: true}))
		return err
	}
	if err := stands("2"); err != nil {
		t.Errorf("of nobody's service: %v", err)
	}
	if _, err := d.Info(stage.WithCaller(t.Context(), stage.Caller{Orchestrator: "a", Rank: "1"})); err != nil {
		t.Fatalf("the look of the one that stands by has claimed it: %v", err)
	}
	hand.advance(Silence - 1)
	if err := stands("2"); stagerpc.OwnerRank(err) != "1" {
		t.Errorf("the owner's rank is not told: %v", err)
	}
	if err := stands("1"); stage.ReasonOf(err) != stage.StageOwned { // as its owner, that is, which does not keep it alive
		t.Errorf("to the owner: %v", err)
	}
	hand.advance(1)
	if err := stands("2"); err != nil {
		t.Errorf("behind the owner's silence: %v", err)
	}
	if err := load(as(t, "c"), d); err != nil {
		t.Errorf("a call by another one: %v", err)
	}
	if err := stands("2"); stage.ReasonOf(err) != stage.StageOwned || stagerpc.OwnerRank(err) != "" {
		t.Errorf("of a service whose owner tells no rank: %v", err)
	}
}

// TestStandbyHearsOfDraining: who stands by hears that the owner drains, from then on, and not of the next owner.
func TestStandbyHearsOfDraining(t *testing.T) {
	d, hand := owned(t, "", "")
	look := func(c stage.Caller) error {
		t.Helper()
		_, err := d.Info(stage.WithCaller(t.Context(), c))
		return err
	}
	hears := func(when string, want bool) {
		t.Helper()
		if err := look(stage.Caller{Rank: "2", Standby: true}); stage.ReasonOf(err) != stage.StageOwned || stagerpc.OwnerDraining(err) != want {
			t.Errorf("%s: %v, want StageOwned, draining %t", when, err, want)
		}
	}
	for i, c := range []struct{ drains, heard bool }{{false, false}, {true, true}, {false, true}} { // the last was under way before
		if err := look(stage.Caller{Orchestrator: "a", Rank: "1", Draining: c.drains}); err != nil {
			t.Fatal(err)
		}
		hears(fmt.Sprint("behind call ", i), c.heard)
	}
	if err := look(stage.Caller{Orchestrator: "a", Rank: "2"}); err != nil {
		t.Fatal(err)
	}
	hears("when it has started again", false)
	hand.advance(Silence)
	if err := look(stage.Caller{Orchestrator: "b", Rank: "3"}); err != nil {
		t.Fatal(err)
	}
	hears("of the next owner", false)
	if err := look(stage.Caller{Orchestrator: "c", Rank: "4", Draining: true}); stage.ReasonOf(err) != stage.StageOwned {
		t.Errorf("of another one: %v", err)
	}
	hears("when another one drains", false)
}

// TestDeath: work that ends because its caller is gone, which may take a while, is no sign of life.
func TestDeath(t *testing.T) {
	d, hand := owned(t, "", "hold denoise 2")
	if err := load(as(t, "a"), d); err != nil {
		t.Fatal(err)
	}
	dying, die := context.WithCancel(as(t, "a"))
	begun, result := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(result)
		_, _ = d.Work(dying, stagetest.Request(stage.KindDenoiser), stage.Observer{Progress: func(done, _ int) {
			if done == 1 {
				close(begun)
			}
		}})
	}()
	<-begun
	hand.advance(Silence)
	die()
	<-result
	if err := d.Settle(t.Context(), unet); err != nil { // the work has ended there
		t.Errorf("somebody is refused behind the owner's silence: %v", err)
	}
	if _, err := d.Info(as(t, "b")); err != nil {
		t.Errorf("the next one: %v", err)
	}
}
