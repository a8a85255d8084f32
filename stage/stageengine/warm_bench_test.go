package stageengine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/stage"
)

// BenchmarkLoad makes a denoiser resident again that was evicted: from the page cache, and from warm weights. It takes the
// starter model, and that of the size of Stable Diffusion 1.5 where `go run ./bench sd15` has written it.
func BenchmarkLoad(b *testing.B) {
	for _, dir := range []string{"models/starter", "bench/.cache/sd15"} {
		library, err := OpenLibrary(filepath.Join(repo, dir))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			b.Fatal(err)
		}
		model := library.Names()[0]
		dev, err := cpu.New(cpu.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer dev.Close()
		d := newStage(stage.KindDenoiser, Options{Library: library, Device: dev, Host: "test", WarmBytes: 1 << 40})
		load := func() {
			if err := d.Load(b.Context(), stage.LoadRequest{Component: partOf(d, model)}, nil); err != nil {
				b.Fatal(err)
			}
		}
		evict := func(keep bool) {
			if _, err := d.Evict(b.Context(), stage.EvictRequest{Component: partOf(d, model), Keep: keep}); err != nil {
				b.Fatal(err)
			}
		}
		for name, keep := range map[string]bool{"cached": false, "warm": true} {
			b.Run(model+"/"+name, func(b *testing.B) {
				load() // the files are in the page cache now
				for b.Loop() {
					b.StopTimer()
					evict(keep)
					b.StartTimer()
					load()
				}
				b.ReportMetric(float64(dev.Memory().UsedBytes)/(1<<20), "MiB")
				evict(false)
			})
		}
	}
}
