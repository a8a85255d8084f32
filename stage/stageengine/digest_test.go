package stageengine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
		"vae":       func(dir string) { flip(t, filepath.Join(dir, "vae", weights)) },
		"text":      func(dir string) { flip(t, filepath.Join(dir, "text_encoder/model.safetensors")) },
		"tokenizer": func(dir string) { _ = os.WriteFile(filepath.Join(dir, "tokenizer/more.json"), []byte("{}"), 0o600) },
	})
	e, d, v := NewEncoder(o), NewDenoiser(o), NewDecoder(o)
	e.digests(t.Context()) // as Info would, in the background
	d.digests(t.Context())
	v.digests(t.Context())
	for kind, c := range map[stage.Kind]struct {
		stage  stage.Resident
		others []string // not equal to a
		alone  string   // that nobody reads
	}{
		stage.KindEncoder:  {e, []string{"text", "tokenizer"}, "tokenizer"},
		stage.KindDenoiser: {d, []string{"unet"}, ""},
		stage.KindDecoder:  {v, []string{"vae"}, ""},
	} {
		info, err := c.stage.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		digests := map[string]string{}
		for _, m := range info.Models {
			if digests[m.Model] = m.Digest; m.Problem != "" || m.Stamp == "" || (m.Digest == "") != (m.Model == c.alone) {
				t.Errorf("%v %s: digest %q, %s", kind, m.Model, m.Digest, m.Problem)
			}
		}
		for name, digest := range digests {
			different := false
			for _, other := range c.others {
				different = different || name == other
			}
			if (digest != digests["a"]) != different {
				t.Errorf("%v: %s has %q, a %q", kind, name, digest, digests["a"])
			}
		}
	}
	stamps := map[string]string{}
	before, err := d.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range before.Models {
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
	again, err := NewDenoiser(o).Info(t.Context()) // of another process, whose digests are not known yet
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range info.Models {
		if m.Stamp == "" || m.Stamp != again.Models[i].Stamp || (m.Stamp == stamps[m.Model]) != (m.Model != "copy") {
			t.Errorf("%s has stamp %q, %q before the copy's file was exchanged, and %q in another process", m.Model, m.Stamp, stamps[m.Model], again.Models[i].Stamp)
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
	books := NewEncoder(copies(t, map[string]func(string){"plain": add("{}", name), "linked": add("{}", "blob"), "another": add("[]", "blob")})).books
	if books["linked"].settings != books["plain"].settings {
		t.Errorf("a link to a file is not like the file:\n%s\n%s", books["linked"].settings, books["plain"].settings)
	}
	if books["another"].problem != nil || books["another"].settings == books["linked"].settings {
		t.Errorf("a link to another file is like a link to the file: %v", books["another"].problem)
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
	d := NewDenoiser(Options{Library: library, Device: device})
	book := d.books["starter"]
	b.SetBytes(book.network().StoredBytes())
	for b.Loop() {
		if _, err := d.hash(b.Context(), book, func(int64) {}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestEqualParts: a fine-tune whose U-Net alone was trained shares all else; what differs before any byte is read, is not read.
func TestEqualParts(t *testing.T) {
	o := copies(t, map[string]func(string){
		"a":     func(string) {},
		"tuned": func(dir string) { flip(t, filepath.Join(dir, "unet/diffusion_pytorch_model.safetensors")) },
		"other": func(string) {},
	})
	other := filepath.Join(o.Library.paths["other"], "tokenizer/more.json")
	if err := os.WriteFile(other, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	size := func(file string) int64 {
		info, err := os.Stat(filepath.Join(o.Library.paths["a"], file))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	var last, total int64
	got, err := EqualParts(t.Context(), o, []string{"tuned", "a", "other"}, func(read, all int64) { last, total = read, all })
	want := []Equal{{stage.KindEncoder, []string{"a", "tuned"}}, {stage.KindDenoiser, []string{"a", "other"}}, {stage.KindDecoder, []string{"a", "other", "tuned"}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
	files := 2*size("text_encoder/model.safetensors") + 3*size("unet/diffusion_pytorch_model.safetensors") + 3*size("vae/diffusion_pytorch_model.safetensors")
	if total != files || last > total || last < total*9/10 { // headers are not hashed
		t.Errorf("%d of %d bytes were read, the files have %d", last, total, files)
	}
	if got, err := EqualParts(t.Context(), o, []string{"other"}, func(int64, int64) { t.Error("one model was read") }); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := EqualParts(ctx, o, []string{"a", "tuned"}, func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := EqualParts(t.Context(), o, []string{"a", "none"}, nil); stage.ReasonOf(err) != stage.ModelNotFound {
		t.Errorf("%v", err)
	}
}

// TestDigestsEndWithTheStage: what computes digests, however slowly beside work, ends when the stage drains, and begins again
// when it takes work again.
func TestDigestsEndWithTheStage(t *testing.T) {
	o := copies(t, map[string]func(string){"a": func(string) {}, "b": func(string) {}})
	d := NewDenoiser(o)
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
