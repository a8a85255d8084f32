//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	stagev1alpha1 "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestFineTuneCostsOneDenoiser: beside a model, a copy whose U-Net alone differs takes one U-Net more: text encoder and autoencoder
// are loaded once for both, and the pictures are those of each model alone.
func TestFineTuneCostsOneDenoiser(t *testing.T) {
	const starter, tuned = "starter", "tuned"
	folder := filepath.Join(t.TempDir(), tuned)
	if err := os.CopyFS(folder, os.DirFS("../models/starter")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "unet/diffusion_pytorch_model.safetensors")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) - 4<<20; i < len(data); i += 2 {
		data[i] ^= 0xff // the lower half of a float16's mantissa
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	spec := func(model string) *triptychv1alpha1.GenerationSpec {
		return &triptychv1alpha1.GenerationSpec{Model: model, Prompt: "fox", Seed: ptr(uint64(3)), Steps: ptr(int32(3))}
	}
	alone := map[string]string{}
	for model, dir := range map[string]string{starter: "models/starter", tuned: folder} {
		s := up(t, "--models", dir)
		events, err := s.generate(t.Context(), spec(model), nil)
		if err != nil {
			t.Fatal(err)
		}
		alone[model] = string(images(t, events)[0])
		s.stop(t)
	}
	if alone[starter] == alone[tuned] {
		t.Fatal("the two models make one picture: the test shows nothing")
	}

	// The orchestrator is started when the services know their digests.
	args := []string{"orchestrator", "--listen", "127.0.0.1:0"}
	for _, kind := range []string{"encoder", "denoiser", "decoder"} {
		address := startServer(t, command(t, kind, "--log-level", "info", "--models", "models/starter", "--models", folder)).conn.Target()
		awaitDigests(t, address, kind != "denoiser")
		args = append(args, "--"+kind, address)
	}
	s := startServer(t, command(t, args...))
	watch, err := triptychv1alpha1.NewResidencyServiceClient(s.conn).WatchResidency(t.Context(), &triptychv1alpha1.WatchResidencyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, model := range []string{starter, tuned, starter, tuned} {
		events, err := s.generate(t.Context(), spec(model), nil)
		if err != nil {
			t.Fatal(err)
		}
		if string(images(t, events)[0]) != alone[model] {
			t.Errorf("%s makes another picture beside the other model", model)
		}
	}
	loaded := map[string][]string{}
	for grants := 0; grants < 12; { // of four jobs
		news, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		switch e := news.GetDecision().GetEvent(); e.GetAction() {
		case triptychv1alpha1.ResidencyEvent_ACTION_GRANT:
			grants++
		case triptychv1alpha1.ResidencyEvent_ACTION_LOADED:
			loaded[e.GetStage()] = append(loaded[e.GetStage()], e.GetModel())
		}
	}
	if !slices.Equal(loaded["encoder"], []string{starter}) || !slices.Equal(loaded["decoder"], []string{starter}) || len(loaded["denoiser"]) != 2 {
		t.Errorf("loaded were %v, want one encoder, one decoder and two denoisers", loaded)
	}
}

// awaitDigests waits until a service has told digests of all its models, which are equal or not.
func awaitDigests(t *testing.T, address string, equal bool) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		info, err := stagev1alpha1.NewStageServiceClient(conn).GetStageInfo(t.Context(), &stagev1alpha1.GetStageInfoRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		digests := map[string][]string{} // by what a component is in its model
		for _, c := range info.GetComponents() {
			part := strings.TrimPrefix(c.GetName(), c.GetModel())
			if c.GetDigest() != "" {
				digests[part] = append(digests[part], c.GetDigest())
			}
		}
		done := len(digests) > 0
		for _, d := range digests {
			done = done && len(d) == 2
		}
		if !done {
			continue
		}
		for part, d := range digests {
			if (d[0] == d[1]) != equal {
				t.Errorf("digests %v of the models' %s at %s", d, part, address)
			}
		}
		return
	}
	t.Fatal("no digests")
}
