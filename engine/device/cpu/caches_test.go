package cpu

import (
	"os"
	"path/filepath"
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
