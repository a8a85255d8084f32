package weights

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkLoad reads the sections of a file with 1 GB of tensors in 256 KiB pieces, with the file's pages dropped and
// with them in the page cache, and reports the best rates and their share of a plain reader's of the same file. Bytes are
// read as they are, and floats are looked through for what is not finite.
func BenchmarkLoad(b *testing.B) {
	for _, dtype := range []string{"U8", "F16", "F32"} {
		b.Run(dtype, func(b *testing.B) { benchmarkLoad(b, dtype) })
	}
}

func benchmarkLoad(b *testing.B, dtype string) {
	const tensors, each = 64, 16 << 20
	path := large(b, dtype, tensors, each)
	buf := make([]byte, 256<<10)
	plain := func() {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for n := 1; n > 0 && err == nil; {
			n, err = f.Read(buf)
		}
	}
	sections := func() {
		s, err := OpenFile(path)
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		for _, name := range s.Names() {
			section, err := s.Section(name)
			if err != nil {
				b.Fatal(err)
			}
			for at := int64(0); at < section.Size(); at += int64(len(buf)) {
				if _, err := section.ReadAt(buf, at); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	for _, cold := range []bool{true, false} {
		b.Run(map[bool]string{true: "cold", false: "warm"}[cold], func(b *testing.B) {
			seconds := func(f func()) float64 {
				if cold {
					drop(b, path)
				}
				start := time.Now()
				f()
				return time.Since(start).Seconds()
			}
			disk, load := seconds(plain), seconds(sections)
			for b.Loop() {
				disk, load = min(disk, seconds(plain)), min(load, seconds(sections))
			}
			const megabytes = tensors * each / 1e6
			b.ReportMetric(0, "ns/op") // it would hold both
			b.ReportMetric(megabytes/disk, "plain-MB/s")
			b.ReportMetric(megabytes/load, "load-MB/s")
			b.ReportMetric(100*disk/load, "%plain")
		})
	}
}

// large writes a file of tensors with so many bytes each.
func large(b *testing.B, dtype string, tensors, each int) string {
	b.Helper()
	header := ""
	for i := range tensors {
		header += fmt.Sprintf(`,"t%02d":{"dtype":%q,"shape":[%d],"data_offsets":[%d,%d]}`, i, dtype, int64(each)*8/bitsPerElement(dtype), i*each, (i+1)*each)
	}
	f, err := os.Create(filepath.Join(b.TempDir(), "large.safetensors"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for _, data := range append([][]byte{built("{"+header[1:]+"}", nil)}, make([][]byte, tensors)...) {
		if data == nil {
			data = make([]byte, each)
		}
		if _, err := f.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil { // pages must be clean to be dropped
		b.Fatal(err)
	}
	return f.Name()
}

// drop makes the system forget the file's pages.
func drop(b *testing.B, path string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
}
