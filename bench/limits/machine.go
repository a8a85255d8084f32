package limits

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Machine is where a report was made. What the system does not tell is empty or zero.
type Machine struct {
	CPU         string  `json:"cpu"`
	Cores       int     `json:"cores"`
	Caches      []Cache `json:"caches"`
	MemoryBytes int64   `json:"memory_bytes"`
	OS          string  `json:"os"`
	Arch        string  `json:"arch"`
	Kernel      string  `json:"kernel"` // release of the operating system's
	// LoadBefore and LoadAfter are the load averages of 1, 5 and 15 minutes: other work makes times worthless.
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

// Cache is a data cache as one core sees it.
type Cache struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Shared bool   `json:"shared"` // among cores
}

// ThisMachine describes the machine, with its load now as LoadBefore.
func ThisMachine() Machine {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	kib, _ := strconv.ParseInt(strings.TrimSuffix(Field("/proc/meminfo", "MemTotal"), " kB"), 10, 64)
	cpu := Field("/proc/cpuinfo", "model name")
	if family := Field("/proc/cpuinfo", "cpu family"); family != "" {
		cpu += fmt.Sprintf(" (family %s, model %s)", family, Field("/proc/cpuinfo", "model"))
	}
	return Machine{
		CPU: cpu, Cores: runtime.NumCPU(), Caches: Caches(), MemoryBytes: kib << 10, OS: runtime.GOOS, Arch: runtime.GOARCH,
		Kernel: strings.TrimSpace(string(release)), LoadBefore: LoadAverage(),
	}
}

// Caches are the data caches of the first core, the nearest first, as Linux tells them; elsewhere common sizes.
func Caches() []Cache {
	if c := cachesIn("/sys/devices/system/cpu/cpu0/cache"); c != nil {
		return c
	}
	return []Cache{{Name: "L1d", Bytes: 32 << 10}, {Name: "L2", Bytes: 512 << 10}, {Name: "L3", Bytes: 8 << 20, Shared: true}}
}

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

// Field is the value of the first "key : value" line of a file, empty if there is none.
func Field(path, key string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// LoadAverage is the mean number of runnable threads of the last 1, 5 and 15 minutes.
func LoadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(data)); err == nil && len(f) >= 3 {
		return strings.Join(f[:3], " ")
	}
	return ""
}

// AvailableMemory is what processes may still take without swapping, in bytes; 0 if the system does not tell.
func AvailableMemory() int64 {
	kib, _ := strconv.ParseInt(strings.TrimSuffix(Field("/proc/meminfo", "MemAvailable"), " kB"), 10, 64)
	return kib << 10
}
