//go:build linux

package e2e

import (
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// A service keeps what it evicts warm as far as it is told to, and up passes that on to all of them.
func TestWarmMemory(t *testing.T) {
	const unet = "starter/unet"
	t.Run("service", func(t *testing.T) {
		s := startServer(t, command(t, "denoiser", "--log-level", "info", "--warm-memory", "64MiB"))
		d := stagerpc.New(s.conn, stage.KindDenoiser)
		if err := d.Load(t.Context(), stage.LoadRequest{Component: unet}, nil); err != nil {
			t.Fatal(err)
		}
		info, err := d.Info(t.Context())
		if err != nil || info.WarmBudgetBytes != 64<<20 || len(info.Resident) != 1 {
			t.Fatalf("%+v, %v", info, err)
		}
		weights, process := info.Resident[0].WeightsBytes, s.find(t, program+" runtime denoiser")
		before := rss(t, process)
		evicted, err := d.Evict(t.Context(), stage.EvictRequest{Component: unet, Keep: true})
		if err != nil || evicted != (stage.Evicted{FreedBytes: weights, WarmBytes: weights}) {
			t.Errorf("kept: %+v of %d bytes, %v", evicted, weights, err)
		}
		if now := rss(t, process); now < before-weights/2 {
			t.Errorf("the runtime shrank from %d to %d bytes with %d warm", before, now, weights)
		}
		steps := 0
		if err := d.Load(t.Context(), stage.LoadRequest{Component: unet}, func(int64, int64) { steps++ }); err != nil || steps != 1 {
			t.Errorf("the load of warm weights made progress %d times: %v", steps, err)
		}
		if _, err = d.Evict(t.Context(), stage.EvictRequest{Component: unet}); err != nil {
			t.Error(err)
		}
		if info, err = d.Info(t.Context()); err != nil || info.UsedBytes != 0 || info.Warm != nil || info.Resident != nil {
			t.Errorf("in the end %+v, %v", info, err)
		}
		if now := rss(t, process); now > before-weights/2 {
			t.Errorf("the runtime is of %d bytes, with %d more in memory it was of %d", now, weights, before)
		}
	})
	t.Run("up", func(t *testing.T) {
		s := up(t, "--warm-memory", "3MB")
		for _, kind := range stageNames {
			conn, err := grpc.NewClient(s.addresses[kind], grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			of, _ := stage.ParseKind(kind)
			if info, err := stagerpc.New(conn, of).Info(t.Context()); err != nil || info.WarmBudgetBytes != 3_000_000 {
				t.Errorf("the %s keeps %d bytes warm, %v", kind, info.WarmBudgetBytes, err)
			}
		}
	})
}

// TestBudgetWithWarmMemory: what a budget has evicted for one image is there again for the next without a load, and that is the
// same. With room for less, the rest is read.
func TestBudgetWithWarmMemory(t *testing.T) {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox on a blue background", Seed: ptr(uint64(42)), Steps: ptr(int32(2))}
	largest, _, want := footprints(t, spec)
	for _, c := range []struct {
		memory string
		all    bool // loads of the second image are from there
	}{{"64MiB", true}, {"3MB", false}} {
		s := up(t, "--memory-budget", strconv.FormatInt(largest, 10), "--warm-memory", c.memory)
		loads, fromWarm := 0, 0
		for image := range 2 {
			events, err := s.generate(t.Context(), spec, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := images(t, events); string(got[0]) != string(want[0]) {
				t.Errorf("with %s warm the picture differs", c.memory)
			}
			for _, e := range events {
				r := e.GetResidency()
				if image == 0 || r.GetAction() != triptychv1alpha1.ResidencyEvent_ACTION_LOADED {
					continue
				}
				loads++
				if r.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_FROM_WARM {
					fromWarm++
				}
			}
		}
		if loads < 2 || fromWarm == 0 || (fromWarm == loads) != c.all {
			t.Errorf("with %s, %d of %d loads were from warm", c.memory, fromWarm, loads)
		}
		s.stop(t)
	}
}
