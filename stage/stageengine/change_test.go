package stageengine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// unet is a denoiser of a copy of a small model, whose weights a test changes.
type unet struct {
	*Stage
	t    *testing.T
	file string // of the weights
}

func newUNet(t *testing.T, streamed bool) *unet {
	dir := copied(t)
	library, err := OpenLibrary(filepath.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Library: library, Device: dev, WarmBytes: 1 << 30}
	if streamed {
		o.ResidentBytes = map[stage.Kind]int64{stage.KindDenoiser: 0}
	}
	u := &unet{newStage(stage.KindDenoiser, o), t, filepath.Join(dir, weightFiles[stage.KindDenoiser])}
	t.Cleanup(func() {
		u.evict(false)
		if m := dev.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != 0 {
			t.Errorf("memory in the end: %+v", m)
		}
	})
	return u
}

func (u *unet) load() (e stage.Edition) {
	u.t.Helper()
	if err := u.Load(u.t.Context(), stage.LoadRequest{Component: partOf(u.Stage, staleModel), Edition: func(told stage.Edition) { e = told }}, nil); err != nil {
		u.t.Fatal(err)
	}
	return e
}

func (u *unet) evict(keep bool) stage.Evicted {
	u.t.Helper()
	e, err := u.Evict(context.Background(), stage.EvictRequest{Component: partOf(u.Stage, staleModel), Keep: keep})
	if err != nil {
		u.t.Fatal(err)
	}
	return e
}

// draw is the latent of a request of two steps; between hears of the first.
func (u *unet) draw(between func()) ([]byte, error) {
	u.t.Helper()
	latents, err := denoise(u.t.Context(), u.Stage, denoising{
		Model: staleModel, States: tensor.FromF32(make([]float32, 77*32), 1, 77, 32),
		H: 8, W: 8, Steps: 2, Guidance: 1, Sampler: "ddim", Checkpoints: 1,
	}, stage.Observer{Checkpoint: func(stage.Checkpoint) { between() }})
	return latents.Data, err
}

func (u *unet) good() []byte {
	u.t.Helper()
	v, err := u.draw(func() {})
	if err != nil {
		u.t.Fatal(err)
	}
	return v
}

// told is what Info says of what is held.
func (u *unet) told() (resident, warm []stage.ResidentComponent, c stage.Component) {
	u.t.Helper()
	info, err := u.Info(u.t.Context())
	if err != nil {
		u.t.Fatal(err)
	}
	return info.Resident, info.Warm, info.Components[0]
}

// rename puts a changed file in the place of the weights, as most tools do that write files.
func (u *unet) rename() {
	u.t.Helper()
	data, err := os.ReadFile(u.file)
	if err != nil {
		u.t.Fatal(err)
	}
	data[len(data)-1] ^= 0x10
	if err := errors.Join(os.WriteFile(u.file+".new", data, 0o600), os.Rename(u.file+".new", u.file)); err != nil {
		u.t.Fatal(err)
	}
}

// hide changes weights in their file and gives that the times back that it had.
func (u *unet) hide() {
	u.t.Helper()
	info, err := os.Stat(u.file)
	if err != nil {
		u.t.Fatal(err)
	}
	overwrite(u.t, u.file, "conv_in.weight", 0.5)
	if err := os.Chtimes(u.file, info.ModTime(), info.ModTime()); err != nil {
		u.t.Fatal(err)
	}
}

// Weights of files that have changed are not used again: what is resident, streamed or warm goes, and the next load reads
// what is there then, under another identity.
func TestFilesChange(t *testing.T) {
	for name, c := range map[string]struct {
		streamed, warm bool
		change         func(*unet)
	}{
		"renamed":          {change: (*unet).rename},
		"hidden":           {change: (*unet).hide},
		"streamed renamed": {change: (*unet).rename, streamed: true},
		"streamed hidden":  {change: (*unet).hide, streamed: true},
		"warm renamed":     {change: (*unet).rename, warm: true},
		"warm hidden":      {change: (*unet).hide, warm: true},
		"config":           {change: func(u *unet) { touchConfig(u.t, u.file) }},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUNet(t, c.streamed)
			before := u.load()
			old := u.good()
			before.Identity = u.book(partOf(u.Stage, staleModel)).edition().Identity // streamed weights have been read by now
			if before.Identity == "" || before.Stamp == "" {
				t.Fatalf("edition %+v", before)
			}
			if c.warm {
				u.evict(true)
			}
			c.change(u)
			u.look()
			resident, warm, _ := u.told()
			if held := slices.Concat(resident, warm); len(held) != 1 || !strings.Contains(held[0].Stale, "files have changed") || (len(warm) == 1) != c.warm {
				t.Errorf("%+v are resident and %+v warm", resident, warm)
			}
			if _, err := u.draw(func() {}); stage.ReasonOf(err) != stage.StageEvicted {
				t.Errorf("%v, want StageEvicted", err)
			}
			if e := u.evict(true); e.WarmBytes != 0 {
				t.Errorf("evicted %+v, want nothing warm", e)
			}
			after := u.load()
			changed := u.good()
			after.Identity = u.book(partOf(u.Stage, staleModel)).edition().Identity
			if !before.Differs(after) || after.Stamp == before.Stamp {
				t.Errorf("edition %+v became %+v", before, after)
			}
			if name != "config" && bytes.Equal(old, changed) {
				t.Error("the same latent from other weights")
			}
			if _, _, c := u.told(); c.Edition != after || c.Problem != "" {
				t.Errorf("%+v is told, want edition %+v", c, after)
			}
		})
	}
}

// touchConfig changes a network's settings to what does not matter to it.
func touchConfig(t *testing.T, weights string) {
	t.Helper()
	path := filepath.Join(filepath.Dir(weights), "config.json")
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, bytes.Replace(data, []byte(`"sample_size": `), []byte(`"sample_size": 1`), 1), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A load finds by itself that files were changed since the eviction, or what is warm is of others, before anybody has looked.
func TestLoadOfChangedFiles(t *testing.T) {
	for _, keep := range []bool{false, true} {
		for _, change := range []func(*unet){(*unet).rename, (*unet).hide} {
			u := newUNet(t, false)
			before := u.load()
			old := u.good()
			u.evict(keep)
			change(u)
			if after := u.load(); !before.Differs(after) || after.Identity == "" {
				t.Errorf("kept %v: edition %+v became %+v", keep, before, after)
			}
			if bytes.Equal(u.good(), old) {
				t.Errorf("kept %v: the old latent", keep)
			}
		}
	}
}

// The identity does not depend on how weights are held or when they were read, and stays when a file is written with the same.
func TestIdentity(t *testing.T) {
	whole, streamed := newUNet(t, false), newUNet(t, true)
	a := whole.load()
	if b := streamed.load(); b.Identity != "" {
		t.Errorf("identity %q of what has not been read", b.Identity)
	}
	streamed.good()
	if b := streamed.book(staleModel + "/unet").edition(); a.Identity == "" || b.Identity != a.Identity {
		t.Errorf("identities %q, and %q streamed", a.Identity, b.Identity)
	}
	if all, err := Identities(t.Context(), whole.Options, staleModel); err != nil || all[staleModel+"/unet"] != a.Identity || all[staleModel+"/text_encoder"] == "" || all[staleModel+"/vae.decoder"] == "" || all[staleModel+"/vae.encoder"] == "" {
		t.Errorf("identities %v, %v; want %q for the denoiser", all, err, a.Identity)
	}
	whole.rename()
	whole.rename() // to what it was
	whole.look()
	if b := whole.load(); b.Identity != a.Identity || b.Stamp == a.Stamp || a.Differs(b) {
		t.Errorf("written with the same, %+v became %+v", a, b)
	}
}

// Weights that are streamed while their file is written give an error and never a mixture, whatever the file's times say; so
// do those that were changed since they were read for an earlier load.
func TestStreamedFilesChangeUnderWork(t *testing.T) {
	u := newUNet(t, true)
	u.load()
	old := u.good()
	_, err := u.draw(u.hide)
	var told *stage.Error
	if !errors.As(err, &told) || told.Reason != stage.ModelChanged || told.Metadata["tensor"] != "conv_in.weight" || strings.Contains(told.Message, u.file) {
		t.Fatalf("%v (%+v), want ModelChanged of conv_in.weight", err, told)
	}
	if _, err := u.draw(func() {}); stage.ReasonOf(err) != stage.StageEvicted {
		t.Errorf("%v, want StageEvicted", err)
	}
	u.load()
	if bytes.Equal(u.good(), old) {
		t.Error("the old latent from new weights")
	}
}

// A change that leaves no trace, as a bit that flips on the disk, is found by a load: it has another identity, or, streamed, is an
// error as soon as it is read.
func TestHiddenChange(t *testing.T) {
	for _, streamed := range []bool{false, true} {
		u := newUNet(t, streamed)
		u.load()
		old := u.good()
		before := u.book(partOf(u.Stage, staleModel)).edition()
		u.evict(false)
		u.hide()
		b := u.book(partOf(u.Stage, staleModel)) // whose stamp is made to be that of the files
		now, _ := b.changed()
		if !now {
			t.Error("the change left no trace")
		}
		b.stamp = stampOf(b)
		after := u.load()
		got, err := u.draw(func() {})
		switch {
		case streamed && stage.ReasonOf(err) != stage.ModelChanged:
			t.Errorf("streamed: %v, want ModelChanged", err)
		case !streamed && (err != nil || bytes.Equal(got, old) || after.Stamp != before.Stamp || !before.Differs(after)):
			t.Errorf("edition %+v became %+v, %v", before, after, err)
		}
	}
}

// writing is a device during whose loads files are written.
type writing struct {
	device.Device
	write func()
}

func (w *writing) Load(ctx context.Context, m *device.Manifest, p device.LoadPlan, src device.Source, progress func(int64)) (device.Weights, error) {
	loaded, err := w.Device.Load(ctx, m, p, src, progress)
	w.write()
	return loaded, err
}

// A load of files that are written meanwhile fails, leaves nothing, and succeeds when they are no longer.
func TestFilesChangeUnderLoad(t *testing.T) {
	u := newUNet(t, false)
	dev := &writing{u.Device, u.rename}
	u.Device = dev
	if err := u.Load(t.Context(), stage.LoadRequest{Component: partOf(u.Stage, staleModel)}, nil); stage.ReasonOf(err) != stage.ModelChanged {
		t.Fatalf("%v, want ModelChanged", err)
	}
	if used := dev.Memory().UsedBytes; used != 0 {
		t.Errorf("%d bytes are left", used)
	}
	dev.write = func() {}
	u.load()
	u.good()
}

// Models that are added to a folder, repaired, replaced or removed are told by the next Info; what is held of a removed one goes
// first. A folder that vanishes for a moment changes nothing.
func TestFolderChanges(t *testing.T) {
	u := newUNet(t, false)
	folder := filepath.Dir(filepath.Dir(filepath.Dir(u.file)))
	names := func() (good, broken []string) {
		t.Helper()
		u.look()
		info, err := u.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range info.Components {
			if m.Problem == "" {
				good = append(good, m.Model)
			} else {
				broken = append(broken, m.Model)
			}
		}
		return good, broken
	}
	expect := func(when string, wantGood, wantBroken []string) {
		t.Helper()
		if good, broken := names(); !slices.Equal(good, wantGood) || !slices.Equal(broken, wantBroken) {
			t.Errorf("%s: %q, and %q with a problem; want %q and %q", when, good, broken, wantGood, wantBroken)
		}
	}
	u.load()
	another := filepath.Join(folder, "another")
	if err := os.CopyFS(another, os.DirFS(filepath.Join(folder, staleModel))); err != nil {
		t.Fatal(err)
	}
	expect("added", []string{"another", staleModel}, nil)
	file := filepath.Join(another, weightFiles[stage.KindDenoiser])
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{100, len(data) / 2, len(data) - 1} { // a copy under way
		if err := os.WriteFile(file, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		expect("cut", []string{staleModel}, []string{"another"})
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := u.Load(t.Context(), stage.LoadRequest{Component: partOf(u.Stage, "another")}, nil); err != nil { // before anybody looks
		t.Errorf("whole again: %v", err)
	}
	expect("whole again", []string{"another", staleModel}, nil)
	if err := os.RemoveAll(another); err != nil {
		t.Fatal(err)
	}
	expect("removed while it is held", []string{staleModel}, []string{"another"})
	if info, err := u.Info(t.Context()); err != nil || !slices.ContainsFunc(info.Resident, func(m stage.ResidentComponent) bool { return m.Name == "another/unet" && m.Stale != "" }) {
		t.Errorf("%+v, %v", info.Resident, err)
	}
	if _, err := u.Evict(t.Context(), stage.EvictRequest{Component: partOf(u.Stage, "another"), Keep: true}); err != nil {
		t.Fatal(err)
	}
	expect("removed", []string{staleModel}, nil)
	if err := u.Load(t.Context(), stage.LoadRequest{Component: partOf(u.Stage, "another")}, nil); stage.ReasonOf(err) != stage.ModelNotFound {
		t.Errorf("%v, want ModelNotFound", err)
	}
	if err := os.Rename(folder, folder+".gone"); err != nil {
		t.Fatal(err)
	}
	expect("the folder is away", []string{staleModel}, nil)
	u.good()
	if err := os.Rename(folder+".gone", folder); err != nil {
		t.Fatal(err)
	}
	expect("the folder is back", []string{staleModel}, nil)
	if resident, _, _ := u.told(); len(resident) != 1 || resident[0].Stale != "" {
		t.Errorf("resident %+v", resident)
	}
}

// stampOf is what the stamp of a book's files is by now.
func stampOf(b *book) string {
	now, _ := modeldir.Stamp(b.of.path, b.of.files.Folders, b.files)
	return now
}

// A model whose configs break is told to be broken and has no components, but for what is held, which is stale; it is as before
// once they are repaired, be it found by a load before anybody has looked.
func TestConfigsBreak(t *testing.T) {
	u := newUNet(t, false)
	path := filepath.Join(filepath.Dir(filepath.Dir(u.file)), "vae/config.json") // another component's
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	info := func(problem, components, stale int) {
		t.Helper()
		u.look()
		i, err := u.Info(t.Context())
		if err != nil || len(i.Models) != 1 {
			t.Fatalf("%+v, %v", i, err)
		}
		m := i.Models[0]
		if (m.Problem != "") != (problem > 0) || (len(m.Recipes) > 0) == (problem > 0) || len(i.Components) != components {
			t.Errorf("%+v with components %+v, want %d problems and %d components", m, i.Components, problem, components)
		}
		if got := len(slices.DeleteFunc(i.Resident, func(r stage.ResidentComponent) bool { return r.Stale == "" })); got != stale {
			t.Errorf("%d components are stale, want %d", got, stale)
		}
	}
	u.load()
	info(0, 1, 0)
	write([]byte("{"))
	info(1, 1, 1)
	if _, err := u.Work(t.Context(), stage.WorkRequest{Turn: "denoise", Components: []string{partOf(u.Stage, staleModel)}}, stage.Observer{}); stage.ReasonOf(err) != stage.StageEvicted {
		t.Errorf("%v, want StageEvicted", err)
	}
	u.evict(true)
	info(1, 0, 0)
	load := func() error {
		return u.Load(t.Context(), stage.LoadRequest{Component: partOf(u.Stage, staleModel)}, nil)
	}
	if err := load(); stage.ReasonOf(err) != stage.ModelInvalid {
		t.Errorf("%v, want ModelInvalid", err)
	}
	write(data)
	if err := load(); err != nil { // before anybody looks
		t.Error(err)
	}
	info(0, 1, 0)
	u.good()
}
