package e2e

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// A service keeps what it evicts warm as far as it is told to, and up passes that on to all of them.
func TestWarmMemory(t *testing.T) {
	const model = "starter"
	t.Run("service", func(t *testing.T) {
		s := startServer(t, command(t, "denoiser", "--log-level", "info", "--warm-memory", "64MiB"))
		d := stagerpc.NewDenoiser(s.conn)
		if err := d.Load(t.Context(), stage.LoadRequest{Model: model}, nil); err != nil {
			t.Fatal(err)
		}
		info, err := d.Info(t.Context())
		if err != nil || info.WarmBudgetBytes != 64<<20 || len(info.Resident) != 1 {
			t.Fatalf("%+v, %v", info, err)
		}
		weights, process := info.Resident[0].WeightsBytes, s.find(t, program+" runtime denoiser")
		before := rss(t, process)
		evicted, err := d.Evict(t.Context(), stage.EvictRequest{Model: model, Keep: true})
		if err != nil || evicted != (stage.Evicted{FreedBytes: weights, WarmBytes: weights}) {
			t.Errorf("kept: %+v of %d bytes, %v", evicted, weights, err)
		}
		if now := rss(t, process); now < before-weights/2 {
			t.Errorf("the runtime shrank from %d to %d bytes with %d warm", before, now, weights)
		}
		steps := 0
		if err := d.Load(t.Context(), stage.LoadRequest{Model: model}, func(int64, int64) { steps++ }); err != nil || steps != 1 {
			t.Errorf("the load of warm weights made progress %d times: %v", steps, err)
		}
		if _, err = d.Evict(t.Context(), stage.EvictRequest{Model: model}); err != nil {
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
			resident := map[string]stage.Resident{"encoder": stagerpc.NewEncoder(conn), "denoiser": stagerpc.NewDenoiser(conn), "decoder": stagerpc.NewDecoder(conn)}[kind]
			if info, err := resident.Info(t.Context()); err != nil || info.WarmBudgetBytes != 3_000_000 {
				t.Errorf("the %s keeps %d bytes warm, %v", kind, info.WarmBudgetBytes, err)
			}
		}
	})
}
