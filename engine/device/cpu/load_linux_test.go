package cpu_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/engine/weights"
)

// stored writes a safetensors file of float16 weights in the shapes of a large U-Net, some megabytes times
// blocks, and gives their manifest in another order than the file's.
func stored(t testing.TB, blocks int) (path string, m *device.Manifest, bytes int64) {
	t.Helper()
	m = &device.Manifest{}
	add := func(name string, layout device.Layout, shape ...int) {
		m.Add(device.Param{Name: name, Layout: layout, DType: tensor.F16, Shape: shape})
	}
	for b := range blocks {
		name := func(s string) string { return fmt.Sprintf("block.%02d.%s", (b*7)%blocks, s) }
		add(name("resnet.conv1.weight"), device.Filter, 1280, 1280, 3, 3)
		add(name("resnet.conv1.bias"), device.Vector, 1280)
		add(name("resnet.conv2.weight"), device.Filter, 640, 960, 3, 3)
		add(name("resnet.conv2.bias"), device.Vector, 640)
		add(name("ff.proj.weight"), device.Matrix, 5120, 640)
		add(name("ff.proj.bias"), device.Vector, 5120)
		add(name("attn.to_q.weight"), device.Matrix, 1280, 1280)
		add(name("attn.to_k.weight"), device.Matrix, 320, 768)
		add(name("conv_in.weight"), device.Filter, 320, 4, 3, 3)
	}
	header := map[string]any{}
	for i := range m.Params { // the file has the parameters backwards
		p := &m.Params[len(m.Params)-1-i]
		n, _ := p.Shape.Elems()
		header[p.Name] = map[string]any{"dtype": "F16", "shape": p.Shape, "data_offsets": []int64{bytes, bytes + int64(2*n)}}
		bytes += int64(2 * n)
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "weights.safetensors")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, 1<<20)
	for i := 0; i < len(block); i += 2 {
		binary.LittleEndian.PutUint16(block[i:], uint16(r.UintN(2))<<15|uint16(r.UintN(0x3c00))) // below 1
	}
	write := func(b []byte) {
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	write(binary.LittleEndian.AppendUint64(nil, uint64(len(text))))
	write(text)
	for at := int64(0); at < bytes; at += int64(len(block)) {
		write(block[:min(int64(len(block)), bytes-at)])
	}
	if err := f.Sync(); err != nil { // pages must be clean to be dropped
		t.Fatal(err)
	}
	return path, m, bytes
}

// BenchmarkLoad loads 1 GB of float16 weights, with the file's pages dropped and with them in the page cache. It
// reports the best rates of all rounds, in MB of weights a second, and their share of what the machine gives in
// rounds between: a plain reader of the same file, memcpy by two threads between memory already in
// use, and memcpy to memory that the system must find first, as it must for weights.
func BenchmarkLoad(b *testing.B) {
	path, m, bytes := stored(b, 20)
	for _, kept := range []tensor.DType{tensor.Invalid, tensor.I8} {
		name := "F16"
		if kept != tensor.Invalid {
			name = kept.String()
			for i := range m.Params {
				if p := &m.Params[i]; p.Layout != device.Vector {
					p.Resident = kept
				}
			}
		}
		d := open(b, cpu.Options{})
		load := func() time.Duration {
			return timed(func() {
				set, err := weights.OpenFile(path)
				if err != nil {
					b.Fatal(err)
				}
				defer set.Close()
				w, err := d.Load(b.Context(), m, device.LoadPlan{}, set, nil)
				if err != nil {
					b.Fatal(err)
				}
				defer w.Free()
			})
		}
		b.Run(name+"/cold", func(b *testing.B) {
			best := map[string]time.Duration{}
			for b.Loop() {
				drop(b, path)
				shorter(best, "disk", timed(func() { readPlainly(b, path) }))
				drop(b, path)
				shorter(best, "load", load())
			}
			report(b, bytes, best)
		})
		b.Run(name+"/warm", func(b *testing.B) {
			best := map[string]time.Duration{}
			readPlainly(b, path)
			src, dst := mapped(b, int(bytes)), mapped(b, int(bytes))
			clear(src)
			clear(dst)
			for b.Loop() {
				shorter(best, "memcpy", timed(func() { copyByTwo(dst, src) }))
				fresh := mapped(b, int(bytes))
				shorter(best, "memcpy-new", timed(func() { copyByTwo(fresh, src) }))
				_ = unix.Munmap(fresh)
				shorter(best, "load", load())
			}
			_, _ = unix.Munmap(src), unix.Munmap(dst)
			report(b, bytes, best)
		})
	}
}

// BenchmarkLoadStarter loads the three networks of models/starter, of which each parameter is small.
func BenchmarkLoadStarter(b *testing.B) {
	dir, err := modeldir.OpenStableDiffusion(filepath.Join("..", "..", "..", "models", "starter"))
	if err != nil {
		b.Fatal(err)
	}
	text, err := dir.TextEncoder()
	if err != nil {
		b.Fatal(err)
	}
	defer text.Close()
	unet, err := dir.Denoiser()
	if err != nil {
		b.Fatal(err)
	}
	defer unet.Close()
	vae, err := dir.ImageDecoder()
	if err != nil {
		b.Fatal(err)
	}
	defer vae.Close()
	d := open(b, cpu.Options{})
	networks := []*modeldir.Network{&text.Network, &unet.Network, &vae.Network}
	params := 0
	for b.Loop() {
		params = 0
		for _, n := range networks {
			w, err := d.Load(b.Context(), n.Manifest(), device.LoadPlan{}, n.Source(), nil)
			if err != nil {
				b.Fatal(err)
			}
			w.Free()
			params += len(n.Manifest().Params)
		}
	}
	b.ReportMetric(float64(params), "params")
}

// report gives rates in MB/s, and the load's as a share of the others.
func report(b *testing.B, bytes int64, best map[string]time.Duration) {
	b.ReportMetric(0, "ns/op") // it would hold everything
	for name, t := range best {
		b.ReportMetric(float64(bytes)/1e6/t.Seconds(), name+"-MB/s")
		if name != "load" {
			b.ReportMetric(100*t.Seconds()/best["load"].Seconds(), "%"+name)
		}
	}
}

// drop makes the system forget the file's pages.
func drop(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

func readPlainly(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for n, err := 1, error(nil); n > 0 && err == nil; {
		n, err = f.Read(buf)
	}
}

func mapped(t testing.TB, bytes int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // as the arena has it
	return mem
}

func copyByTwo(dst, src []byte) {
	var group sync.WaitGroup
	half := len(src) / 2
	group.Go(func() { copy(dst[:half], src) })
	group.Go(func() { copy(dst[half:], src[half:]) })
	group.Wait()
}
