package stageengine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/stage"
)

// copies makes a library of copies of a model, each after a change.
func copies(t testing.TB, changes map[string]func(dir string)) Options {
	t.Helper()
	folder := t.TempDir()
	for name, change := range changes {
		dir := filepath.Join(folder, name)
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(repo, "testdata/golden/tiny-sd15"))); err != nil {
			t.Fatal(err)
		}
		change(dir)
	}
	library, err := OpenLibrary(folder)
	if err != nil {
		t.Fatal(err)
	}
	device, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() }) // it always returns nil
	return Options{Library: library, Device: device}
}

// flip changes the last byte of a file.
func flip(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDigests(t *testing.T) {
	const weights = "diffusion_pytorch_model.safetensors"
	o := copies(t, map[string]func(string){
		"a":         func(string) {},
		"copy":      func(string) {},
		"unet":      func(dir string) { flip(t, filepath.Join(dir, "unet", weights)) },
		"vae":       func(dir string) { overwrite(t, filepath.Join(dir, "vae", weights), "decoder.conv_in.bias", 3) },
		"picture":   func(dir string) { overwrite(t, filepath.Join(dir, "vae", weights), "encoder.conv_in.bias", 3) },
		"text":      func(dir string) { flip(t, filepath.Join(dir, "text_encoder/model.safetensors")) },
		"tokenizer": func(dir string) { _ = os.WriteFile(filepath.Join(dir, "tokenizer/more.json"), []byte("{}"), 0o600) },
	})
	e, d, v := newStage(stage.KindEncoder, o), newStage(stage.KindDenoiser, o), newStage(stage.KindDecoder, o)
	e.digests(t.Context()) // as Info would, in the background
	d.digests(t.Context())
	v.digests(t.Context())
	for part, c := range map[string]struct {
		stage  *Stage
		others []string // not equal to a
		alone  string   // that nobody reads
	}{
		"text_encoder": {e, []string{"text", "tokenizer"}, "tokenizer"},
		"unet":         {d, []string{"unet"}, ""},
		"vae.decoder":  {v, []string{"vae"}, ""},
		"vae.encoder":  {v, []string{"picture"}, ""},
	} {
		info, err := c.stage.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		digests := map[string]string{}
		for _, m := range info.Components {
			if m.Name != m.Model+"/"+part {
				continue
			}
			if digests[m.Model] = m.Digest; m.Problem != "" || m.Stamp == "" || (m.Digest == "") != (m.Model == c.alone) {
				t.Errorf("%v %s: digest %q, %s", part, m.Model, m.Digest, m.Problem)
			}
		}
		for name, digest := range digests {
			different := false
			for _, other := range c.others {
				different = different || name == other
			}
			if (digest != digests["a"]) != different {
				t.Errorf("%v: %s has %q, a %q", part, name, digest, digests["a"])
			}
		}
	}
	stamps := map[string]string{}
	before, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range before.Components {
		stamps[m.Model] = m.Stamp
	}
	// Of other files nothing is known any more.
	if err := os.Chtimes(filepath.Join(o.Library.paths["copy"], "unet", weights), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	d.look()
	for _, b := range d.all() {
		if (b.digest.Load() == nil) != (b.component.Model == "copy") {
			t.Errorf("once the files of the copy are others, the digest of %s is %v", b.component.Model, b.digest.Load())
		}
	}
	info, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := newStage(stage.KindDenoiser, o).Info(t.Context()) // of another process, whose digests are not known yet
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range info.Components {
		if m.Stamp == "" || m.Stamp != again.Components[i].Stamp || (m.Stamp == stamps[m.Model]) != (m.Model != "copy") {
			t.Errorf("%s has stamp %q, %q before the copy's file was exchanged, and %q in another process", m.Model, m.Stamp, stamps[m.Model], again.Components[i].Stamp)
		}
	}
}

// TestLinkedTokenizers: files that are links, as in the hub's cache, tell tokenizers apart.
func TestLinkedTokenizers(t *testing.T) {
	const name = "tokenizer/more.json"
	add := func(text string, file string) func(string) {
		return func(dir string) {
			err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600)
			if err == nil && file != name {
				err = os.Symlink("../"+file, filepath.Join(dir, name))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	books := newStage(stage.KindEncoder, copies(t, map[string]func(string){"plain": add("{}", name), "linked": add("{}", "blob"), "another": add("[]", "blob")})).books
	if books["linked/text_encoder"].settings != books["plain/text_encoder"].settings {
		t.Errorf("a link to a file is not like the file:\n%s\n%s", books["linked/text_encoder"].settings, books["plain/text_encoder"].settings)
	}
	if books["another/text_encoder"].problem != nil || books["another/text_encoder"].settings == books["linked/text_encoder"].settings {
		t.Errorf("a link to another file is like a link to the file: %v", books["another/text_encoder"].problem)
	}
}

func BenchmarkDigest(b *testing.B) {
	library, err := OpenLibrary(filepath.Join(repo, "models"))
	if err != nil {
		b.Fatal(err)
	}
	device, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer device.Close()
	d := newStage(stage.KindDenoiser, Options{Library: library, Device: device})
	book := d.books["starter/unet"]
	b.SetBytes(book.network().Files().StoredBytes())
	for b.Loop() {
		if _, err := d.hash(b.Context(), book, func(int64) {}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDigestsEndWithTheStage: what computes digests, however slowly beside work, ends when the stage drains, and begins again
// when it takes work again.
func TestDigestsEndWithTheStage(t *testing.T) {
	o := copies(t, map[string]func(string){"a": func(string) {}, "b": func(string) {}})
	d := newStage(stage.KindDenoiser, o)
	d.working.Add(1 << 20) // for good: the pauses of a hash are far longer than this test
	known := func() (count int) {
		for _, b := range d.all() {
			if b.digest.Load() != nil {
				count++
			}
			if b.unreadable.Load() {
				t.Errorf("%s is taken for unreadable", b.component.Model)
			}
		}
		return count
	}
	if _, err := d.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d.hashing.done != nil {
		t.Error("digests are computed by a stage that has drained")
	}
	if _, err := d.Info(t.Context()); err != nil || d.hashing.done != nil {
		t.Errorf("digests are computed for who looks at a stage that has drained (%v)", err)
	}
	d.working.Store(0)
	if err := d.Undrain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.hashing.mu.Lock()
	done := d.hashing.done
	d.hashing.mu.Unlock()
	if done != nil {
		<-done
	}
	if n := known(); n != 2 {
		t.Errorf("%d digests of 2 are known in the end", n)
	}
}
