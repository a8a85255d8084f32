package limits

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

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
	rates := map[string]Rate{"FMA": l.FMA, "memcpy": l.Memcpy, "fresh": l.Fresh}
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
