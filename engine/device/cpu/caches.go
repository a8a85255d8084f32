package cpu

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Cache is a data cache as one core sees it.
type Cache struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Shared bool   `json:"shared"` // among cores
}

// Caches are the data caches of the first core, the nearest first, as Linux tells them; elsewhere common sizes.
func Caches() []Cache {
	if c := cachesIn("/sys/devices/system/cpu/cpu0/cache"); c != nil {
		return c
	}
	return []Cache{{Name: "L1d", Bytes: 32 << 10}, {Name: "L2", Bytes: 512 << 10}, {Name: "L3", Bytes: 8 << 20, Shared: true}}
}

// cachesIn reads the folder of a core; sizes are in KiB.
func cachesIn(dir string) (out []Cache) {
	for i := 0; ; i++ {
		read := func(name string) string {
			data, _ := os.ReadFile(filepath.Join(dir, fmt.Sprintf("index%d", i), name))
			return strings.TrimSpace(string(data))
		}
		level, kind := read("level"), read("type")
		if level == "" {
			return out
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(read("size"), "K"), 10, 64)
		if err != nil || kind == "Instruction" {
			continue
		}
		c := Cache{Name: "L" + level, Bytes: kib << 10, Shared: strings.ContainsAny(read("shared_cpu_list"), ",-")}
		if kind == "Data" {
			c.Name += "d"
		}
		out = append(out, c)
	}
}

// l2 is the size of the second cache. Only what does not change results may depend on it.
var l2 = sync.OnceValue(func() int64 {
	for _, c := range Caches() {
		if c.Name == "L2" {
			return c.Bytes
		}
	}
	return 512 << 10
})
