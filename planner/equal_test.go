package planner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/families"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// TestEqualParts: a fine-tune whose U-Net alone was trained shares all else; what differs before any byte is read, is not read.
func TestEqualParts(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"a", "tuned", "other"} {
		if err := os.CopyFS(filepath.Join(folder, name), os.DirFS(filepath.Join(repo, "testdata/golden/tiny-sd15"))); err != nil {
			t.Fatal(err)
		}
	}
	tuned := filepath.Join(folder, "tuned/unet/diffusion_pytorch_model.safetensors")
	data, err := os.ReadFile(tuned)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := errors.Join(os.WriteFile(tuned, data, 0o600), os.WriteFile(filepath.Join(folder, "other/tokenizer/more.json"), []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	library, err := stageengine.OpenLibrary(folder)
	if err != nil {
		t.Fatal(err)
	}
	device, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() }) // it always returns nil
	o := stageengine.Options{Library: library, Device: device, Families: families.All()}
	size := func(file string) int64 {
		info, err := os.Stat(filepath.Join(filepath.Join(folder, "a"), file))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	var last, total int64
	parts := func(models ...string) (out []string) {
		for _, m := range models {
			out = append(out, m+"/text_encoder", m+"/unet", m+"/vae.decoder")
		}
		return out
	}
	got, err := EqualParts(t.Context(), o, parts("tuned", "a", "other"), func(read, all int64) { last, total = read, all })
	want := []Equal{
		{stage.KindEncoder, []string{"a/text_encoder", "tuned/text_encoder"}},
		{stage.KindDenoiser, []string{"a/unet", "other/unet"}},
		{stage.KindDecoder, []string{"a/vae.decoder", "other/vae.decoder", "tuned/vae.decoder"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
	files := 2*size("text_encoder/model.safetensors") + 3*size("unet/diffusion_pytorch_model.safetensors") + 3*size("vae/diffusion_pytorch_model.safetensors")
	if last != total || total > files || total < files/2 { // headers and the picture's encoder are not hashed
		t.Errorf("%d of %d bytes were read, the files have %d", last, total, files)
	}
	if got, err := EqualParts(t.Context(), o, parts("other"), func(int64, int64) { t.Error("one model was read") }); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := EqualParts(ctx, o, parts("a", "tuned"), func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := EqualParts(t.Context(), o, parts("a", "none"), nil); stage.ReasonOf(err) != stage.ModelNotFound {
		t.Errorf("%v", err)
	}
}
