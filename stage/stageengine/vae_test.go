package stageengine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/stage"
)

// openReplaced opens stages over models of a folder with the autoencoders of files.
func openReplaced(t *testing.T, vaes map[string]string, folder string) stages {
	t.Helper()
	library, err := OpenLibrary(folder)
	if err == nil {
		err = library.ReplaceVAE(vaes)
	}
	if err != nil {
		t.Fatal(err)
	}
	device, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() }) // it always returns nil
	s := stages{}
	for _, kind := range stage.Kinds() {
		s[kind] = newStage(kind, Options{Library: library, Device: device})
	}
	return s
}

// microDirectory copies micro-sd15 into a folder, under another name and with an autoencoder of zeros.
func microDirectory(t *testing.T, folder, name string) {
	t.Helper()
	dir := filepath.Join(folder, name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(formatGoldens, "micro-sd15"))); err != nil {
		t.Fatal(err)
	}
	zero(t, filepath.Join(dir, vaeFile), filepath.Join(dir, vaeFile))
}

// TestReplacedVAE: a model draws with the autoencoder of a file what it draws with one of its own, be it a directory or a file, and in whatever
// layout and precision that is.
func TestReplacedVAE(t *testing.T) {
	folder := t.TempDir()
	microDirectory(t, folder, "directory")
	single(t, folder, "checkpoint", "sd-f32.safetensors", "micro-sd15")
	single(t, folder, "without", "sd-no-vae.safetensors", "micro-sd15")
	for _, file := range []string{"vae-bare.safetensors", "vae-training.vae.pt", "vae-diffusers-old.safetensors"} {
		s, told := openReplaced(t, map[string]string{"": filepath.Join(formatGoldens, "checkpoints", file)}, folder), ""
		for _, model := range []string{"directory", "checkpoint", "without"} {
			if m := s[stage.KindDecoder].model(model); m.problem != nil {
				t.Errorf("%s: %v", model, m.problem)
				continue
			}
			for _, c := range readCases(t, formatGoldens, func(c goldenCase) bool { return c.ID == "ck-sd" }) {
				c.ID, c.Model = file+" in "+model, model
				told += c.check(t, formatGoldens, s, s.recipe(model))
			}
			b := s[stage.KindDecoder].book(model + "/vae.decoder")
			if b.problem != nil || len(b.files) != 1 || filepath.Base(b.files[0]) != file {
				t.Errorf("%s has its autoencoder from %v, %v", model, b.files, b.problem)
			}
		}
		t.Log(told)
	}
}

// TestReplacedVAEOf: files are for the models that they name, or for all others; their bytes are part of what models are known by, and those of
// a file that has changed are read again.
func TestReplacedVAEOf(t *testing.T) {
	folder := t.TempDir()
	microDirectory(t, folder, "a")
	microDirectory(t, folder, "b")
	place := t.TempDir()
	right, wrong := filepath.Join(place, "right.safetensors"), filepath.Join(place, "wrong.safetensors")
	zero(t, filepath.Join(formatGoldens, "checkpoints", "vae-bare.safetensors"), wrong)
	writeTensors(t, right, readTensors(t, filepath.Join(formatGoldens, "checkpoints", "vae-bare.safetensors")))
	s := openReplaced(t, map[string]string{"": right, "b": wrong}, folder)[stage.KindDecoder]
	component := func(model string) string { return model + "/vae.decoder" }
	identity := func(model string) string {
		t.Helper()
		if err := s.Load(t.Context(), stage.LoadRequest{Component: component(model)}, nil); err != nil {
			t.Fatal(err)
		}
		return s.book(component(model)).edition().Identity
	}
	one, other := identity("a"), identity("b")
	if one == other || one == "" {
		t.Errorf("identities %q and %q", one, other)
	}
	stamp := s.book(component("a")).component.Stamp
	zero(t, right, right+".new")
	if err := os.Rename(right+".new", right); err != nil {
		t.Fatal(err)
	}
	s.look()
	if b := s.book(component("a")); b.stale.Load() == nil {
		t.Error("the weights of a file that has changed are good still")
	}
	if b := s.book(component("b")); b.stale.Load() != nil {
		t.Errorf("those of another one are not: %s", *b.stale.Load())
	}
	if now := identity("a"); now != other || s.book(component("a")).component.Stamp == stamp {
		t.Errorf("identity %q of the changed file, want %q; stamp %s before and after", now, other, stamp)
	}
	for _, model := range []string{"a", "b"} {
		if _, err := s.Evict(t.Context(), stage.EvictRequest{Component: component(model)}); err != nil {
			t.Error(err)
		}
	}
	ids, err := Identities(t.Context(), s.Options, "b")
	if err != nil || ids[component("b")] != other {
		t.Errorf("%v, %v, want the decoder known by %s", ids, err, other)
	}
}

// TestReplacedVAERefused: what is no autoencoder is the problem of each model that would use it, by what it is and without where; files
// and models that are not there are refused at once.
func TestReplacedVAERefused(t *testing.T) {
	folder := t.TempDir()
	microDirectory(t, folder, "micro")
	place := filepath.Join(t.TempDir(), "secret-place")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(place, "style.safetensors")
	writeTensors(t, file, readTensors(t, filepath.Join(formatGoldens, "lora", "sd-te1.safetensors")))
	for kind, on := range openReplaced(t, map[string]string{"micro": file}, folder) {
		m := on.model("micro")
		if m.problem == nil || !strings.Contains(m.problem.Message, "style.safetensors: expected an autoencoder (AutoencoderKL), got a file of class LoRA") || strings.Contains(m.problem.Message, "secret") {
			t.Errorf("%v: %v", kind, m.problem)
		}
	}
	library, err := OpenLibrary(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, files := range []map[string]string{{"": filepath.Join(place, "gone")}, {"": place}, {"other": file}} {
		if err := library.ReplaceVAE(files); err == nil {
			t.Errorf("%v is taken", files)
		}
	}
}

// TestKindsOfFiles: textual inversions and autoencoders among models are listed by what they are, without a problem and without anything to
// load, and drawn with as ever.
func TestKindsOfFiles(t *testing.T) {
	folder := t.TempDir()
	want := map[string]string{"easy": "embedding", "mse": "vae", "style": "lora", "micro-sd15": ""}
	err := os.CopyFS(filepath.Join(folder, "micro-sd15"), os.DirFS(filepath.Join(formatGoldens, "micro-sd15")))
	for name, file := range map[string]string{"easy.safetensors": "embeddings/<one>.safetensors", "mse.safetensors": "checkpoints/vae-diffusers.safetensors", "style.safetensors": "lora/sd-te1.safetensors"} {
		data, readErr := os.ReadFile(filepath.Join(formatGoldens, file))
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(folder, name), data, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	for kind, s := range openStages(t, folder) {
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range info.Models {
			if adapter, known := want[m.Name]; !known || m.Adapter != adapter || m.Problem != "" {
				t.Errorf("%v: %s is a %q, %s", kind, m.Name, m.Adapter, m.Problem)
			}
		}
		if len(info.Models) != len(want) || slices.ContainsFunc(info.Components, func(c stage.Component) bool { return c.Model == "easy" || c.Model == "mse" }) {
			t.Errorf("%v: %d models, components %+v", kind, len(info.Models), info.Components)
		}
		if words := s.Library.Embeddings(); len(words) != 1 || words[0].File != "easy.safetensors" {
			t.Errorf("%v: embeddings %+v", kind, words)
		}
	}
}
