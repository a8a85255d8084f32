package limits

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCaches(t *testing.T) {
	dir := t.TempDir()
	for i, c := range []map[string]string{
		{"level": "1", "type": "Data", "size": "32K", "shared_cpu_list": "0"},
		{"level": "1", "type": "Instruction", "size": "64K", "shared_cpu_list": "0"},
		{"level": "2", "type": "Unified", "size": "512K", "shared_cpu_list": "0"},
		{"level": "3", "type": "Unified", "size": "8192K", "shared_cpu_list": "0-1"},
	} {
		sub := filepath.Join(dir, "index"+string(rune('0'+i)))
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, value := range c {
			if err := os.WriteFile(filepath.Join(sub, name), []byte(value+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []Cache{{Name: "L1d", Bytes: 32 << 10}, {Name: "L2", Bytes: 512 << 10}, {Name: "L3", Bytes: 8 << 20, Shared: true}}
	if diff := cmp.Diff(want, cachesIn(dir)); diff != "" {
		t.Error(diff)
	}
	if got := cachesIn(filepath.Join(dir, "nothing")); got != nil {
		t.Errorf("caches %v out of nothing", got)
	}
}

func TestAt(t *testing.T) {
	l := Limits{Levels: []Level{{Name: "L1d", Bytes: 100}, {Name: "L2", Bytes: 1000}, {Name: "DRAM"}}}
	for bytes, want := range map[float64]string{1: "L1d", 100: "L1d", 101: "L2", 1000: "L2", 1001: "DRAM"} {
		if got := l.At(bytes).Name; got != want {
			t.Errorf("%v bytes lie in %s, want %s", bytes, got, want)
		}
	}
}

func TestMeasure(t *testing.T) {
	l, err := Measure(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	rates := map[string]Rate{"FMA": l.FMA, "memcpy": l.Memcpy}
	for _, v := range l.Levels {
		rates[v.Name+" read"], rates[v.Name+" copy"] = v.Read, v.Copy
	}
	for name, r := range rates {
		if r.One <= 0 || r.All <= 0 {
			t.Errorf("%s: %+v", name, r)
		}
		t.Logf("%-10s %7.1f %7.1f", name, r.One, r.All)
	}
}

func TestDiskRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	bytes, seconds, err := DiskRead(path)
	switch {
	case err != nil:
		t.Fatal(err)
	case runtime.GOOS == "linux" && (bytes != 5<<20 || seconds <= 0):
		t.Errorf("%d bytes in %v s", bytes, seconds)
	}
	if err := DropCached(path); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
