//go:build linux

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestModelsChange: files that are replaced while everything runs give other pictures, under another identity and with a word of
// it, and models come and go without a restart.
func TestModelsChange(t *testing.T) {
	folder := t.TempDir()
	copyModel := func(name string) {
		if err := os.CopyFS(filepath.Join(folder, name), os.DirFS("../testdata/golden/tiny-sd15")); err != nil {
			t.Fatal(err)
		}
	}
	copyModel("first")
	s := up(t, "--models", folder)
	models := triptychv1alpha1.NewModelServiceClient(s.conn)
	// await polls what is told of a model, nil if nothing is.
	await := func(what, name string, ok func(m *triptychv1alpha1.Model) bool) *triptychv1alpha1.Model {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			list, err := models.ListModels(t.Context(), &triptychv1alpha1.ListModelsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			var found *triptychv1alpha1.Model
			for _, m := range list.GetModels() {
				if m.GetName() == name {
					found = m
				}
			}
			if ok(found) {
				return found
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %v", what, found)
			}
		}
	}
	draw := func(model string) (string, bool) {
		t.Helper()
		events, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Model: model, Prompt: "a fox", Seed: ptr(uint64(1)), Steps: ptr(int32(2)), Output: &triptychv1alpha1.OutputOptions{OmitMetadata: true}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		changed := false
		for _, e := range events {
			changed = changed || e.GetResidency().GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_CHANGED
		}
		return string(images(t, events)[0]), changed
	}
	identity := func(m *triptychv1alpha1.Model) string {
		if m == nil {
			return ""
		}
		return m.GetStages()[1].GetIdentity()
	}
	known := func(m *triptychv1alpha1.Model) bool { return identity(m) != "" }

	before, _ := draw("first")
	old := identity(await("an identity", "first", known))
	if local := runCommand(t, "models", "--models", folder, "--identity"); !strings.Contains(local.stdout, old[:12]) {
		t.Errorf("triptych models does not tell %s:\n%s%s", old, local.stdout, local.stderr)
	}
	file := filepath.Join(folder, "first/unet/diffusion_pytorch_model.safetensors")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-2] ^= 0x11
	if err := errors.Join(os.WriteFile(file+".new", data, 0o600), os.Rename(file+".new", file)); err != nil {
		t.Fatal(err)
	}
	await("the change", "first", func(m *triptychv1alpha1.Model) bool { return m != nil && identity(m) != old })
	after, told := draw("first")
	if after == before || !told {
		t.Errorf("another picture: %v, told of: %v", after != before, told)
	}
	if now := identity(await("the new identity", "first", known)); now == old {
		t.Error("the identity is the old one")
	}

	copyModel("second")
	await("an added model", "second", func(m *triptychv1alpha1.Model) bool { return m != nil && m.GetProblem() == "" })
	if other, _ := draw("second"); other != before {
		t.Error("the added model draws another picture than the first did")
	}
	if err := os.RemoveAll(filepath.Join(folder, "second")); err != nil {
		t.Fatal(err)
	}
	await("a removed model", "second", func(m *triptychv1alpha1.Model) bool { return m == nil })
	s.stop(t)
	for _, text := range []string{"its files have changed", "it is another than before"} {
		if !strings.Contains(s.log.String(), text) {
			t.Errorf("the log does not tell that %s:\n%s", text, s.log)
		}
	}
}
